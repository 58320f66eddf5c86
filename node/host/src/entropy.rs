//! The random source of the operating system, for everything that must be secret or unique.

use getrandom::SysRng;
use rand_core::UnwrapErr;

/// The operating system's random source as an infallible generator.
///
/// It panics when the system has none: no node can run without.
pub type Entropy = UnwrapErr<SysRng>;

/// A generator to hand to whatever takes `&mut impl CryptoRng`.
pub fn entropy() -> Entropy {
    UnwrapErr(SysRng)
}
