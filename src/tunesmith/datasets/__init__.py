"""Datasets: what was uploaded, what each dataset adds up to, and the train configs that go with them.

What rows mean is decided in the workers; bytes come in through a door, and here they are only kept.
"""

from tunesmith.datasets.arrival import Arrived, Details
from tunesmith.datasets.configs import ChosenConfig, TrainConfigs, TrainConfigSummary
from tunesmith.datasets.first_rows import data_faults
from tunesmith.datasets.lookup import Lookup
from tunesmith.datasets.service import DatasetPage, DatasetRequest, DatasetService, DatasetSummary
from tunesmith.datasets.single_files import SingleFiles
from tunesmith.datasets.uploads import InFlight, Received, UploadService, UploadSummary

__all__ = [
    "Arrived",
    "ChosenConfig",
    "DatasetPage",
    "DatasetRequest",
    "DatasetService",
    "DatasetSummary",
    "Details",
    "InFlight",
    "Lookup",
    "Received",
    "SingleFiles",
    "TrainConfigSummary",
    "TrainConfigs",
    "UploadService",
    "UploadSummary",
    "data_faults",
]
