"""Direct training of QKFormers with surrogate gradients (arXiv 2403.16552, section 5). Needs torch and SpikingJelly."""
