//! The controller, on a cluster whose hosts are played.

mod forgetting;
mod leading;
mod life;
