//! The agent inside the guest, and the QTX1 frames that both ends of its channel speak.
//!
//! Owns: the frame codec with its resynchronisation, the agent's supervisor, telemetry, exec and files.
//! They come with the issue that brings guest channels; there is no code here before.
//!
//! Must never: reboot or power off the guest by itself (the life cycle belongs to the hypervisor), trust a
//! length it has read, block for ever on either direction, or exit for any reason but a signal.

#![forbid(unsafe_code)]
