"""What a chip is: kinds of cores with lanes and buffers, the network between them, DRAM, clock, every number cited."""
