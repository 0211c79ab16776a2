"""Trains and evaluates in two processes; for `ci/unit_tests/` of MONAI's model zoo."""

import os
import shutil
import socket
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
import torch
import torch.multiprocessing as mp
from monai.bundle import ConfigWorkflow

BUNDLE_ROOT = "models/medical_image_denoising_dae"
PROCESSES = 2


def workflow(names, folder):
    configs = os.path.join(BUNDLE_ROOT, "configs")
    return ConfigWorkflow(
        workflow_type="train",
        config_file=[os.path.join(configs, f"{name}.json") for name in names],
        logging_file=os.path.join(configs, "logging.conf"),
        meta_file=os.path.join(configs, "metadata.json"),
        bundle_root=BUNDLE_ROOT,
        dataset_dir=os.path.join(folder, "data"),
        ckpt_dir=os.path.join(folder, "models"),
        output_dir=os.path.join(folder, "eval"),
        device="cpu",
        max_epochs=1,
        steps_per_epoch=2,
        batch_size=4,
        patches_per_image=2,
        patch_size=32,
        validation_window=40,
        baselines=["gaussian"],
        **{"network_def#widths": [4, 8], "network_def#blocks": 1},
    )


def run_one(rank, names, folder, port):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(PROCESSES),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    sys.path.insert(0, os.getcwd())
    torch.set_num_threads(1)
    job = workflow(names, folder)
    job.initialize()
    if "evaluate" not in names and job.check_properties() != []:
        raise AssertionError("the configurations lack properties")
    job.run()
    job.finalize()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class TestMedicalImageDenoisingDAEDist(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        rng = np.random.default_rng(0)
        for patient in range(10):
            steps = rng.normal(size=(48, 56, 3)).cumsum(0).cumsum(1)
            place = os.path.join(self.folder, "data", f"patient{patient}")
            os.makedirs(place)
            nib.save(nib.Nifti1Image(steps.astype(np.float32), np.eye(4)), os.path.join(place, "volume.nii.gz"))

    def run_all(self, *names):
        mp.spawn(run_one, (names, self.folder, free_port()), nprocs=PROCESSES)

    def test_train_eval_mgpu_config(self):
        self.run_all("train", "multi_gpu_train")
        weights = torch.load(os.path.join(self.folder, "models", "model_best.pt"), weights_only=True)
        self.assertFalse(any(name.startswith("module.") for name in weights))

        results = os.path.join(self.folder, "eval", "results.json")
        os.remove(results)
        self.run_all("train", "evaluate", "multi_gpu_evaluate")
        self.assertTrue(os.path.isfile(results))


if __name__ == "__main__":
    unittest.main()
