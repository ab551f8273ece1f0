"""Running VTA: a simulator of what hardware executes, a model of its time, and what a library has of the device."""
