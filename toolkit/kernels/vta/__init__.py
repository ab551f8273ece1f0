"""VTA, the open FPGA accelerator: its configuration, its instructions, its boards, and the kernels made of them."""
