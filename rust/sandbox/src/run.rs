//! The whole of a launch, from the specification to the end of the enclave.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloister_attestation::UnixMillis;
use cloister_nsm_sim::{DevelopmentRoot, Simulator};
use cloister_wire::ports;
use rustix::process::{Pid, WaitOptions, WaitStatus, getppid, waitpid};

use crate::cgroup::Groups;
use crate::eif::{Eif, MAX_EIF_BYTES};
use crate::enclose::{self, Enclosure, NAMESPACES, namespace_hint};
use crate::error::{Doing, SandboxError};
use crate::idmap::IdMap;
use crate::measure::Pcrs;
use crate::nsm_server::NsmServer;
use crate::spec::{DEFAULT_GRACE_MS, Event, Spec, Status};
use crate::supervise::{Loop, PARENT_ENDED};
use crate::sweeper::{Sweeper, sweep};
use crate::sys;

/// Runs one enclave. The exit code is 0 when it ended by itself or on request with 0, else 1; what
/// happened is in the status lines.
pub fn run() -> ExitCode {
    let parent = getppid();
    // Bound to the parent before anything is made; the second look closes the gap before the first.
    let bound = rustix::process::set_parent_process_death_signal(Some(PARENT_ENDED));
    if bound.is_err() || getppid() != parent {
        return ExitCode::FAILURE;
    }
    let (Ok(spec), Ok(status)) = (sys::inherited(SPEC_FD), sys::inherited(STATUS_FD)) else {
        complain("the specification goes to descriptor 3 and the status to descriptor 4");
        return ExitCode::FAILURE;
    };
    let mut status = Status::new(status);
    let outcome = Spec::read(spec).and_then(|spec| {
        let outcome = launch(&spec, &mut status, parent);
        if outcome.is_err() {
            sweep(&spec.run_dir, &mut Groups::default());
        }
        outcome
    });
    match outcome {
        Ok(end) => {
            let (code, signal) = (end.exit_status(), end.terminating_signal());
            status.say(&Event::Exited { code, signal });
            if code == Some(0) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(SandboxError { message, hint }) => {
            status.say(&Event::Failed { message, hint });
            ExitCode::FAILURE
        }
    }
}

fn launch(
    spec: &Spec,
    status: &mut Status,
    parent: Option<Pid>,
) -> Result<WaitStatus, SandboxError> {
    let signals = sys::block_signals(&[
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGCHLD,
        libc::SIGUSR1,
        libc::SIGPIPE,
    ])
    .doing(|| "cannot block signals".into())?;
    let file = read_image(&spec.eif)?;
    let image = measured(&file, spec.debug)?;
    let root = DevelopmentRoot::load_or_create(&spec.dev_ca_dir, now())
        .doing(|| "development root".into())?;
    let mut simulator =
        Simulator::new(&root, image.pcrs.numbered(), spec.module_id.as_str(), now())
            .doing(|| "simulated NSM".into())?;
    drop(root);

    let ids = IdMap::choose();
    let nsm = prepare_run_dir(&spec.run_dir, &ids)?;
    let pipes = Pipes::new()?;
    let enclosure = Enclosure {
        run_dir: &spec.run_dir,
        ramdisks: &image.ramdisks,
        // As a kernel gives its initramfs: half of the memory.
        root_bytes: spec.memory_bytes.map(|bytes| bytes / 2),
        ids: ids.count(),
        launcher: &pipes.go.0,
        console: &pipes.console.1,
    };
    let cloned = sys::clone_into(NAMESPACES).map_err(|error| {
        let refusal = SandboxError::new(format!("this system forbids user namespaces: {error}"));
        SandboxError {
            hint: namespace_hint(),
            ..refusal
        }
    })?;
    let Some(init) = cloned else {
        drop(pipes.go.1);
        let error = enclose::enter(&enclosure);
        report(&pipes.failure.1, &error);
        sys::leave(1);
    };
    let started = Start { init, pipes };
    let (groups, sweeper, console) = match started.go_on(spec, &ids) {
        Ok(started) => started,
        Err(error) => {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
            let _ = waitpid(Some(init), WaitOptions::empty());
            return Err(error);
        }
    };
    let pcrs = said(&image.pcrs);
    drop(image);
    drop(file);
    status.say(&Event::Started {
        pcrs,
        init_pid: init.as_raw_nonzero().get(),
    });
    let end = Loop {
        signals: &signals,
        status: status.file(),
        console,
        nsm,
        init,
        parent,
        grace: Duration::from_millis(spec.grace_ms.unwrap_or(DEFAULT_GRACE_MS)),
        deadline: None,
    }
    .run(|request| simulator.handle(request, now()));
    sweeper.stop();
    let mut groups = groups;
    sweep(&spec.run_dir, &mut groups);
    Ok(end)
}

/// What the image holds, once it was read and measured.
struct Image<'a> {
    ramdisks: Vec<&'a [u8]>,
    pcrs: Pcrs,
}

fn measured(file: &[u8], debug: bool) -> Result<Image<'_>, SandboxError> {
    let refused = |error: String| {
        SandboxError::new(error).hint("build the image again with `cloister build`")
    };
    let eif = Eif::parse(file).map_err(|error| refused(error.to_string()))?;
    let pcrs = Pcrs::of(&eif).map_err(|error| refused(error.to_string()))?;
    Ok(Image {
        ramdisks: eif.ramdisks,
        pcrs: if debug { pcrs.debug() } else { pcrs },
    })
}

fn read_image(path: &Path) -> Result<Vec<u8>, SandboxError> {
    let what = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).doing(what)?;
    let length = file.metadata().doing(what)?.len();
    if length > MAX_EIF_BYTES {
        return Err(SandboxError::new(format!(
            "`{}` is {length} bytes long, the limit is {MAX_EIF_BYTES}",
            path.display()
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    Read::by_ref(&mut file)
        .take(MAX_EIF_BYTES)
        .read_to_end(&mut bytes)
        .doing(what)?;
    Ok(bytes)
}

/// Makes what is missing in the run folder, and gives the sockets to root inside.
fn prepare_run_dir(run_dir: &Path, ids: &IdMap) -> Result<NsmServer, SandboxError> {
    let sockets = run_dir.join("v");
    for folder in [run_dir.join("root"), sockets.clone()] {
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(SandboxError::new(format!(
                    "cannot make `{}`: {error}",
                    folder.display()
                )));
            }
            _ => {}
        }
    }
    let nsm = NsmServer::bind(&sockets.join(ports::NSM_SOCKET))
        .doing(|| format!("cannot listen on `{}` in run_dir/v", ports::NSM_SOCKET))?;
    if let Some(outer) = ids.outer_root() {
        let give = |path: &Path| {
            lchown(path, Some(outer), Some(outer))
                .doing(|| format!("cannot give `{}` to the enclave", path.display()))
        };
        give(&sockets)?;
        for entry in fs::read_dir(&sockets).doing(|| "cannot list run_dir/v".into())? {
            give(&entry.doing(|| "cannot list run_dir/v".into())?.path())?;
        }
    }
    Ok(nsm)
}

/// Read end and write end of each pipe between the launcher and the child.
struct Pipes {
    console: (OwnedFd, OwnedFd),
    failure: (OwnedFd, OwnedFd),
    go: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> Result<Self, SandboxError> {
        let pipe = || sys::pipe().doing(|| "cannot make a pipe".into());
        Ok(Self {
            console: pipe()?,
            failure: pipe()?,
            go: pipe()?,
        })
    }
}

/// A child that waits for the sign to go on.
struct Start {
    init: Pid,
    pipes: Pipes,
}

impl Start {
    /// Maps ids, sets limits, lets the child go on, and waits until it became init or failed. The
    /// write end of the pipe `go` stays open for as long as this process lives.
    fn go_on(self, spec: &Spec, ids: &IdMap) -> Result<(Groups, Sweeper, OwnedFd), SandboxError> {
        ids.write(self.init)
            .map_err(|error| match namespace_hint() {
                Some(hint) if error.hint.is_none() => error.hint(hint),
                _ => error,
            })?;
        let (mut groups, skipped) = Groups::limit(self.init, spec.memory_bytes, spec.cpus);
        for skip in skipped {
            complain(&format!("not set: {skip}"));
        }
        let sweeper = Sweeper::start(&spec.run_dir, &mut groups)
            .doing(|| "cannot start the sweeper".into())?;
        let Pipes {
            console,
            failure,
            go,
        } = self.pipes;
        drop((console.1, failure.1, go.0));
        let mut said = Vec::new();
        let result = rustix::io::write(&go.1, &[1])
            .map_err(io::Error::from)
            .and_then(|_| File::from(failure.0).read_to_end(&mut said));
        // Kept open until this process ends: its end tells the child that the launcher is gone.
        std::mem::forget(go.1);
        if said.is_empty() && result.is_ok() {
            rustix::io::ioctl_fionbio(&console.0, true)
                .doing(|| "cannot set up the console".into())?;
            return Ok((groups, sweeper, console.0));
        }
        sweeper.stop();
        groups.remove();
        let text = String::from_utf8_lossy(&said);
        let (message, hint) = text.split_once('\0').unwrap_or((&text, ""));
        Err(SandboxError {
            message: message.to_owned(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        })
    }
}

fn report(pipe: &OwnedFd, error: &SandboxError) {
    let text = format!("{}\0{}", error.message, error.hint.as_deref().unwrap_or(""));
    let _ = rustix::io::write(pipe, text.as_bytes());
}

/// PCR0–2 in any case, others when they are not zero.
fn said(pcrs: &Pcrs) -> BTreeMap<String, String> {
    pcrs.numbered()
        .into_iter()
        .filter(|(index, value)| *index < 3 || *value != [0; 48])
        .map(|(index, value)| {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            (index.to_string(), digits)
        })
        .collect()
}

fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "cloister-sandbox: {message}");
}

fn now() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

const SPEC_FD: i32 = 3;
const STATUS_FD: i32 = 4;
