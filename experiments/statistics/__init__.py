"""The statistics of a comparison, from scores of single trainings to a verdict.

trainings    what is compared: models of an arm beside models of its reference, fold by fold
variance     where the difference varies: test images, classifier seeds, generators
resamples    the group bootstrap
intervals    intervals and p-values of total variance
power        the smallest visible difference
families     which comparisons are tested together
comparison   a row of comparisons.json
curves       AUC, ROC, DeLong
metrics      weighted metrics beside the AUC; paired      their differences
"""

from experiments.statistics.comparison import Difference as Difference
from experiments.statistics.comparison import Names as Names
from experiments.statistics.comparison import compare as compare
from experiments.statistics.comparison import difference as difference
from experiments.statistics.comparison import finish as finish
from experiments.statistics.comparison import verdict as verdict
from experiments.statistics.curves import auc as auc
from experiments.statistics.curves import auc_interval as auc_interval
from experiments.statistics.curves import delong_test as delong_test
from experiments.statistics.curves import roc_band as roc_band
from experiments.statistics.curves import weighted_auc as weighted_auc
from experiments.statistics.families import holm as holm
