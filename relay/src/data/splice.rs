//! Bytes from one connection to the other through a pipe of the kernel, never through this process.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use meshwork_protocol::id::DeviceId;
use rustix::{
    net::{Shutdown, shutdown},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

use super::Shared;

/// Bytes of a pipe. The kernel gives a user 64 MiB for pipes by default and smaller ones beyond it.
const PIPE: usize = 256 << 10;

/// Why a pair was closed before both its ends had ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Broken,
    Idle,
    Budget,
    Stopped,
}

impl End {
    pub(super) const ALL: [Self; 4] = [Self::Broken, Self::Idle, Self::Budget, Self::Stopped];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Budget => "budget",
            Self::Stopped => "stopped",
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Whose bytes these are, and how many went by.
pub(super) struct Meter<'a> {
    pub shared: &'a Shared,
    pub payer: DeviceId,
    pub moved: AtomicU64,
}

impl Meter<'_> {
    /// Counts bytes, and waits while they come faster than they may.
    async fn pass(&self, bytes: usize) -> Result<(), End> {
        let bytes = bytes as u64;
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.shared.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !self.shared.budget.spend(bytes)? {
            return Err(End::Budget);
        }
        let wait = super::lock(&self.shared.rates).spend(self.payer, bytes, std::time::Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

/// Moves bytes both ways until both ends have ended, or one breaks.
pub(super) async fn both(a: &TcpStream, b: &TcpStream, meter: &Meter<'_>, idle: Duration) -> Result<(), End> {
    tokio::select! {
        ended = async { tokio::try_join!(one_way(a, b, meter), one_way(b, a, meter)) } => ended.map(drop),
        end = idles(meter, idle) => Err(end),
    }
}

async fn idles(meter: &Meter<'_>, idle: Duration) -> End {
    let mut seen = meter.moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(idle).await;
        let moved = meter.moved.load(Ordering::Relaxed);
        if moved == seen {
            return End::Idle;
        }
        seen = moved;
    }
}

async fn one_way(from: &TcpStream, to: &TcpStream, meter: &Meter<'_>) -> Result<(), End> {
    let (out, into) = pipe()?;
    loop {
        // The pipe is empty here, so that only an empty socket says that it would block.
        let mut held = from.async_io(Interest::READABLE, || step(from, &into, PIPE)).await?;
        if held == 0 {
            shutdown(to, Shutdown::Write).map_err(io::Error::from)?;
            return Ok(());
        }
        let taken = held;
        while held > 0 {
            held -= to.async_io(Interest::WRITABLE, || step(&out, to, held)).await?;
        }
        meter.pass(taken).await?;
    }
}

fn step(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, bytes: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, bytes, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // A smaller pipe moves the same bytes in more steps.
    let _ = fcntl_setpipe_size(&into, PIPE);
    Ok((out, into))
}
