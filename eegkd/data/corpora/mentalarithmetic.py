"""EEGMAT as the CBraMod benchmark prepares it, under its name there.

20 channels (19 electrodes and A2-A1), resampled to 200 Hz and not filtered, windows of
5 s; 28, 4 and 4 persons. `eegmat` is the same files, filtered and in windows of 4 s.

References:
    wjq-learning/CBraMod, `preprocessing/`; Zyma et al. 2019.

Note:
    The benchmark's windows are microvolts: add `--data.zscore none`.
"""

from eegkd.data.corpora.eegmat import CHANNELS
from eegkd.data.corpora.eegmat import CORPUS as EEGMAT

CORPUS = EEGMAT._replace(
    name="mentalarithmetic",
    defaults={"channels": (*CHANNELS, "A2-A1"), "band": (0.0, 0.0), "window_s": 5.0},
)
