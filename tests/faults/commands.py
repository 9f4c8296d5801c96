"""The commands that faults are injected into, small enough to be run some hundred times."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from fault_harness import run
from PIL import Image

CLASSIFIER = "--backbone vanilla-cnn --weights none --size 32 --batch 32 --epochs 2 --tracking none"
GAN = "--arch dcgan --recipe width=8 --batch 8 --kimg 0.032 --evaluations 0 --tracking none"
TOLD = {"phantom", "folder", "pool", "native", "--synthetic", "all"}
EXPERIMENT = {
    "seeds": [0],
    "gan_seeds": [0],
    "bootstrap": 1000,
    "gan": {"arch": "dcgan", "kimg": 0.016, "batch": 8, "evaluations": 0},
    "classifier": {"backbone": "vanilla-cnn", "weights": "none", "size": 32, "smoke": True},
    "arms": {"real": {}, "synthetic": {"synthetic": 0.3}},
    "comparisons": [["synthetic", "real"]],
}


@dataclass(frozen=True)
class Command:
    """A command line, what it leaves, and how it goes on after a kill."""

    line: str
    out: str = "new"  # the folder or file that it makes, within the working directory
    resumes: bool = False  # has --resume

    @property
    def words(self) -> list[str]:
        """The command line, without `python -m`."""
        return self.line.split()

    @property
    def again(self) -> list[str]:
        """The command line after a kill."""
        return [*self.words, *(["--resume"] if self.resumes else [])]

    @property
    def name(self) -> str:
        """For the table of counts: what tells it from the others."""
        told = [word for word in self.words[1:] if word in TOLD or word.startswith("raw")]
        return " ".join([self.words[0], *told])


PREPARE = "data.prepare --source folder --root raw --folds 2 --out new"
COMMANDS = [
    Command("data.prepare --source phantom --patients 60 --size 32 --out new"),
    Command(f"{PREPARE} --size 32"),
    Command(f"{PREPARE} --size native"),
    Command("data.prepare --source pool --root raw/mel --size 32 --provenance drawn --out new"),
    Command("data.phantom --count 20 --size 32 --out new"),
    Command("data.report p --out card.html", "card.html"),
    Command(f"gan.train --data p2 {GAN} --out new", resumes=True),
    Command("gan.generate --generator g --count 40 --out new"),
    Command("gan.evaluate --generator g --data p2 --network imagenet --count 40", "g/evaluation"),
    Command("gan.explore --generator g", "g/exploration"),
    Command(f"classifier.train --data p {CLASSIFIER} --out new", resumes=True),
    Command(
        f"classifier.train --data p2 {CLASSIFIER} --synthetic 0.3 --generator g --out new",
        resumes=True,
    ),
    Command(f"classifier.train --data p2 {CLASSIFIER} --fold all --out new", resumes=True),
    Command("classifier.predict --run c --data p --out s.csv", "s.csv"),
    Command("classifier.evaluate --run c --replicates 200", "c/evaluation"),
    Command("classifier.metadata --data p --out new"),
    Command("classifier.blend --scores a=c b=c2 --out s.csv", "s.csv"),
    Command("experiments.run e.yaml --data p2 --out new --tracking none", resumes=True),
]


def make_inputs(folder: Path) -> None:
    """What the commands read: datasets p and p2, raw images, generator g, classifiers c and c2."""
    rng = np.random.default_rng(0)
    for name in ("mel", "nv"):
        (folder / "raw" / name).mkdir(parents=True)
        for number in range(12):
            noise = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image = Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC)
            image.save(folder / "raw" / name / f"{name}{number}.png")
    (folder / "e.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    for line in (
        "data.prepare --source phantom --patients 60 --size 32 --out p",
        "data.prepare --source phantom --patients 150 --size 32 --folds 3 --out p2",
        f"gan.train --data p2 {GAN} --out g",
        f"classifier.train --data p {CLASSIFIER} --out c",
        f"classifier.train --data p {CLASSIFIER} --seed 1 --out c2",
        "gan.generate --generator g --count 120 --out pool",
    ):
        outcome = run(line.split(), folder)
        assert outcome.code == 0, f"{line}: {outcome}"
