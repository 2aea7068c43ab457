//! The thread that does to taps what takes long: fastening, moving, removing those of ports that have gone. The kernel's lock for
//! network devices is needed for each, and others hold it for long while containers start and end; the controller must not
//! wait for it but to tap.
//!
//! It owns the port that it works on and hands it back. When it is dropped it ends what it is at, so that no port is
//! left between two kinds of tap.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tap::{Dispatcher, Port, Set, Tidied};

use super::controller::chain;
use super::world::SetId;
use crate::priority;
use crate::runtime::cgroup;

/// Something to do to a port.
pub enum Job {
    /// Have it held by links, of its set's programs.
    Fasten(Port, Arc<Set>),
    /// Have it counted by another set, whose pins are in the folder.
    Move(Port, SetId, Arc<Set>, PathBuf),
    /// Look for a container's control group and have it counted by a set, whose pins are in the folder.
    Group(GroupJob),
    /// Take the programs and their pins away.
    Detach(Port),
    /// Take a port off the filters that it shared, if one is quiet.
    Tidy(Arc<Dispatcher>),
    /// Make anew what holds the filters that ports share, if it is not there.
    Serve(Arc<Dispatcher>),
}

/// A control group to be tapped.
pub struct GroupJob {
    /// The container.
    pub container: String,
    /// Where control groups are.
    pub hierarchy: PathBuf,
    /// Look not only in the usual places.
    pub everywhere: bool,
    /// The set's number.
    pub id: SetId,
    /// The set.
    pub set: Arc<Set>,
    /// Which of its programs.
    pub programs: u32,
    /// Its pins.
    pub dir: PathBuf,
}

/// What comes back.
pub enum Answer {
    /// A port.
    Port(Done),
    /// A control group: the port that it is now, or why it is none.
    Group(GroupJob, Result<Port, String>),
    /// A port was taken off the filters that it shared, or none was.
    Tidied(Result<Option<Tidied>, tap::Error>),
}

/// A port that comes back.
pub struct Done {
    /// The port.
    pub port: Port,
    /// What was done.
    pub what: What,
    /// Whether it could be.
    pub result: Result<(), tap::Error>,
}

/// What was done to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was fastened.
    Fastened,
    /// It was moved to this set.
    Moved(SetId),
}

/// The running thread.
pub struct Rigger {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Rigger {
    /// Starts the thread, in the caller's network namespace; `done` gets every port back that is not detached.
    pub fn start(done: impl Fn(Answer) + Send + 'static) -> std::io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let thread = std::thread::Builder::new().name("rigger".into()).spawn(move || {
            priority::wait_turn();
            for job in inbox {
                match job {
                    Job::Fasten(mut port, set) => {
                        let result = port.fasten(&set);
                        done(Answer::Port(Done { port, what: What::Fastened, result }));
                    }
                    Job::Move(mut port, to, set, dir) => {
                        let result = port.move_to_set(&set, Some(&dir));
                        done(Answer::Port(Done { port, what: What::Moved(to), result }));
                    }
                    Job::Group(job) => {
                        let found = tap_group(&job);
                        done(Answer::Group(job, found));
                    }
                    Job::Detach(port) => detach(port),
                    Job::Tidy(dispatcher) => done(Answer::Tidied(dispatcher.tidy())),
                    Job::Serve(dispatcher) => {
                        if dispatcher.serves() && dispatcher.is_whole() {
                            continue;
                        }
                        if let Err(error) = dispatcher.serve() {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(error, "ports cannot share their filters; each gets its own");
                        }
                    }
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands in a job; it never waits.
    pub fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // the thread ends only after this sender went
            let _ = jobs.send(job);
        }
    }
}

fn tap_group(job: &GroupJob) -> Result<Port, String> {
    let group = cgroup::find(&job.hierarchy, &job.container, job.everywhere)
        .ok_or_else(|| format!("none is named after it below {}", job.hierarchy.display()))?;
    Port::attach_group(&group, &job.set, &job.dir).map_err(|error| chain(&error))
}

/// Takes the programs and their pins away.
pub fn detach(port: Port) {
    let ifindex = port.ifindex();
    if let Err(error) = port.detach() {
        tracing::warn!(ifindex, error = &error as &dyn std::error::Error, "a tap is not removed");
    }
}

impl Drop for Rigger {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
