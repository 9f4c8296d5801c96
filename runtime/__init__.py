"""What every other package stands on: options, files, devices, checkpoints, tracking.

Importing it is cheap (no torch) and mends `import torchvision` beside a CPU build of torch.
"""

from runtime import torchvision_mend

torchvision_mend.install()
