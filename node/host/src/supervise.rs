//! A process from start to a clean stop: named tasks, signals, and a bounded end.

use std::{future::Future, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// Time from the request to stop to the end of the process.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// What a task ends with when it fails.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A request to stop that a task can wait for.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns once the process is to stop; at once when it already is.
    pub async fn requested(&self) {
        // The sender is gone only when the supervisor is, which is a stop as well.
        let _ = self.0.clone().wait_for(|stopping| *stopping).await;
    }

    /// Whether the process is to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// How a supervised process ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A task failed, and the process stopped because of it.
    #[error("{task} failed: {source}")]
    Failed {
        /// Its name.
        task: &'static str,
        /// What it said.
        source: TaskError,
    },
    /// A task panicked, and the process stopped because of it.
    #[error("{task} panicked")]
    Panicked {
        /// Its name.
        task: &'static str,
    },
    /// Some tasks did not end in time and were cut off.
    #[error("{count} tasks did not stop in time")]
    Slow {
        /// How many.
        count: usize,
    },
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(#[from] io::Error),
}

/// The tasks of a process.
#[derive(Debug)]
pub struct Supervisor {
    stop: watch::Sender<bool>,
    stop_time: Duration,
    tasks: JoinSet<(&'static str, Result<(), SuperviseError>)>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// No tasks, not stopping.
    pub fn new() -> Self {
        Self { stop: watch::Sender::new(false), stop_time: STOP_TIME, tasks: JoinSet::new() }
    }

    /// The same, with another bound on the time to stop.
    pub fn with_stop_time(self, stop_time: Duration) -> Self {
        Self { stop_time, ..self }
    }

    /// The request to stop, for a task to wait for.
    pub fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Asks all tasks to stop.
    pub fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// To end the process in order from within, once its work is done.
    pub fn finish(&self) -> impl FnOnce() + Send + 'static {
        let stop = self.stop.clone();
        move || {
            stop.send_replace(true);
        }
    }

    /// Runs a task until it ends by itself. One that fails or panics stops the process; one that ends
    /// well does not.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.tasks.spawn(async move {
            // A task of its own, so that a panic is reported under its name.
            let ended = match tokio::spawn(task).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) => Err(SuperviseError::Failed { task: name, source }),
                Err(_) => Err(SuperviseError::Panicked { task: name }),
            };
            (name, ended)
        });
    }

    /// Waits for SIGTERM, SIGINT or a failed task, then gives all tasks five seconds ([`STOP_TIME`]) to end. A second
    /// signal cuts them off at once.
    pub async fn run(self) -> Result<(), SuperviseError> {
        let mut signals = Signals::new()?;
        self.run_with(&mut signals).await
    }

    /// The same, where signals have been waited for since before it.
    pub(crate) async fn run_with(mut self, signals: &mut Signals) -> Result<(), SuperviseError> {
        let mut outcome = Ok(());
        let finished = self.stop();
        loop {
            tokio::select! {
                () = finished.requested() => break,
                name = signals.next() => {
                    tracing::info!(signal = name, "stopping");
                    break;
                }
                Some(ended) = self.tasks.join_next() => {
                    outcome = settle(ended);
                    if outcome.is_err() {
                        break;
                    }
                }
            }
        }
        self.request_stop();
        let drained = async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = settle(ended);
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
        };
        let in_time = tokio::select! {
            result = tokio::time::timeout(self.stop_time, drained) => result.is_ok(),
            _ = signals.next() => false,
        };
        match outcome {
            Ok(()) if !in_time => Err(SuperviseError::Slow { count: self.tasks.len() }),
            outcome => outcome,
        }
    }
}

fn settle(
    ended: Result<(&'static str, Result<(), SuperviseError>), tokio::task::JoinError>,
) -> Result<(), SuperviseError> {
    let (task, result) = ended.map_err(|_| SuperviseError::Panicked { task: "supervisor" })?;
    match &result {
        Ok(()) => tracing::debug!(task, "task ended"),
        Err(error) => tracing::error!(task, %error, "task failed"),
    }
    result
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they no longer end the process.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_task_stops_the_others() {
        let mut supervisor = Supervisor::new();
        let stop = supervisor.stop();
        supervisor.spawn("patient", async move {
            stop.requested().await;
            Ok(())
        });
        supervisor.spawn("content", async { Ok(()) });
        supervisor.spawn("broken", async { Err("no disk".into()) });
        let error = supervisor.run().await.expect_err("failed");
        assert_eq!(error.to_string(), "broken failed: no disk");
    }

    #[tokio::test]
    async fn a_panic_is_reported_under_the_name_of_the_task() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("shaky", async { panic!("expected by the test") });
        assert!(matches!(supervisor.run().await, Err(SuperviseError::Panicked { task: "shaky" })));
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_cut_off() {
        let mut supervisor = Supervisor::new().with_stop_time(Duration::from_millis(1));
        supervisor.spawn("stubborn", std::future::pending());
        supervisor.spawn("broken", async { Err("x".into()) });
        assert!(matches!(supervisor.run().await, Err(SuperviseError::Failed { task: "broken", .. })));
    }
}
