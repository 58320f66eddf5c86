//! The Meshwork node: everything that runs on a device, for the program `mesh` and for programs that embed it.

pub use meshwork_host::clock;

pub mod api;
pub mod cli;
pub mod daemon;
pub mod disk;
pub mod driver;
pub mod network;
pub mod resource;
pub mod store;
