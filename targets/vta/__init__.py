"""VTA, the open FPGA accelerator: its configuration, its instructions, and a simulator of what hardware executes."""
