//! Job objects for Linux, tested: a kernel in memory, a naive model, a world ruled by a seed.
//!
//! Only tests depend on this.
//! - [`kernel`]: [`FakeKernel`] keeps the platform's promises and has the real kernel's traps;
//! - [`contract`]: those promises, proved on the fake and on whatever implements
//!   [`contract::Kernel`];
//! - [`model`]: what the specification says, naively, one call after the other;
//! - [`world`]: the object manager joined to the fake; effects are done at once, or delayed,
//!   reordered and failed by a seed. What races in the real world races here: a kill with a birth, a
//!   last close with a fork, the news that a group is empty with a newcomer, a removed group with
//!   the next one of the same name; a pid or a descriptor may be missing at any moment;
//! - [`conformance`]: tables anyone can read, and whoever plays them.
//!
//! `JOB_SEEDS=n` tries more seeds than the default, `JOB_SEED=n` replays one, `JOB_TRACE=1` prints
//! every input and output of it.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod contract;
mod core_driver;
pub mod kernel;
pub mod model;
pub mod seed;
pub mod world;

pub use core_driver::CoreDriver;
pub use kernel::{FakeKernel, Traps};
pub use model::Model;
pub use seed::{Chance, for_each_seed, seeds};
pub use world::World;
