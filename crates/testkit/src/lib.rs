//! Job objects for Linux, tested: a kernel in memory, a naive model, a world ruled by a seed.
//!
//! Only tests depend on this.

#![forbid(unsafe_code)]

pub mod kernel;
pub mod model;
pub mod seed;
pub mod world;

pub use kernel::{FakeKernel, Traps};
pub use model::Model;
pub use seed::{Chance, for_each_seed, seeds};
pub use world::World;
