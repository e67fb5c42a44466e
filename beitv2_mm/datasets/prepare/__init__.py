"""From published archives (CIFAR-10, ADE20K, Fashion-MNIST) to folders that can be trained on."""
