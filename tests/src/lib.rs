//! What the tests of Meshwork share.

pub mod device;
pub mod docs;
pub mod fuzz;
pub mod lab;
pub mod server;
pub mod sim;
pub mod tidy;
