//! The controller, on a cluster whose hosts are played.

mod elders;
mod forgetting;
mod leading;
mod life;
