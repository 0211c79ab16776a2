"""Trains, evaluates and denoises by the bundle's configurations; for `ci/unit_tests/` of MONAI's model zoo."""

import os
import shutil
import tempfile
import unittest

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

BUNDLE_ROOT = "models/medical_image_denoising_dae"
NETWORK = {"network_def#widths": [4, 8], "network_def#blocks": 1}


class TestMedicalImageDenoisingDAE(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.dataset_dir = os.path.join(self.folder, "data")
        rng = np.random.default_rng(0)
        for patient in range(10):
            steps = rng.normal(size=(48, 56, 3)).cumsum(0).cumsum(1)
            os.makedirs(os.path.join(self.dataset_dir, f"patient{patient}"))
            volume = nib.Nifti1Image(steps.astype(np.float32), np.eye(4))
            nib.save(volume, os.path.join(self.dataset_dir, f"patient{patient}", "volume.nii.gz"))

    def workflow(self, kind, *names, **override):
        configs = os.path.join(BUNDLE_ROOT, "configs")
        return ConfigWorkflow(
            workflow_type=kind,
            config_file=[os.path.join(configs, f"{name}.json") for name in names],
            logging_file=os.path.join(configs, "logging.conf"),
            meta_file=os.path.join(configs, "metadata.json"),
            bundle_root=BUNDLE_ROOT,
            dataset_dir=self.dataset_dir,
            **override,
        )

    def training_override(self):
        return {
            **NETWORK,
            "ckpt_dir": os.path.join(self.folder, "models"),
            "output_dir": os.path.join(self.folder, "eval"),
            "max_epochs": 1,
            "steps_per_epoch": 2,
            "batch_size": 4,
            "patches_per_image": 2,
            "patch_size": 32,
            "validation_window": 40,
            "baselines": ["gaussian"],
        }

    def check_properties(self, workflow):
        self.assertEqual(workflow.check_properties(), [])

    def test_train_eval_config(self):
        override = self.training_override()
        trainer = self.workflow("train", "train", **override)
        trainer.initialize()
        self.check_properties(trainer)
        trainer.run()
        trainer.finalize()
        self.assertTrue(os.path.isfile(os.path.join(self.folder, "models", "model_best.pt")))

        validator = self.workflow("train", "train", "evaluate", **override)
        validator.initialize()
        validator.run()
        validator.finalize()
        self.assertTrue(os.path.isfile(os.path.join(self.folder, "eval", "results.json")))

    def test_paper_config(self):
        network = {"_target_": "meddenoise_monai.networks.ConvDenoisingAutoencoder", "channels": 4}
        override = {
            **{name: value for name, value in self.training_override().items() if name not in NETWORK},
            "network_def": network,
            "stored_size": 40,
            "image_size": 32,
            "patches_per_image": 1,
        }
        trainer = self.workflow("train", "train", "paper", **override)
        trainer.initialize()
        self.check_properties(trainer)
        trainer.run()
        trainer.finalize()

    def test_infer_config(self):
        output_dir = os.path.join(self.folder, "denoised")
        inferrer = self.workflow("infer", "inference", output_dir=output_dir)
        inferrer.initialize()
        self.check_properties(inferrer)
        inferrer.run()
        inferrer.finalize()
        for patient in os.listdir(self.dataset_dir):
            before = nib.load(os.path.join(self.dataset_dir, patient, "volume.nii.gz"))
            after = nib.load(os.path.join(output_dir, patient, "volume.nii.gz"))
            self.assertEqual(after.shape, before.shape)
            self.assertTrue(np.isfinite(after.get_fdata()).all())


if __name__ == "__main__":
    unittest.main()
