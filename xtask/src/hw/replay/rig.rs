//! A file system on a device whose writes are logged.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::Error;
use crate::hw::probe::Availability;

/// Size of the device in bytes.
pub(super) const DEVICE_BYTES: u64 = 40 << 20;

const PROGRAMS: [&str; 5] = [
    "qemu-storage-daemon",
    "mkfs.ext4",
    "losetup",
    "mount",
    "umount",
];

/// Runs a program that is expected to succeed, and returns what it prints.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|source| Error::Command {
            command: command(),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Error::CommandFailed {
        command: command(),
        detail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Whether this machine has what the replay needs, as far as can be told without trying.
pub(super) fn available() -> Availability {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1))
        == Some("0");
    if !is_root {
        return Availability::missing("only root may mount");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |program: &str| {
        let mut directories = std::env::split_paths(&path);
        directories.any(|directory| directory.join(program).is_file())
    };
    if let Some(program) = PROGRAMS.into_iter().find(|program| !installed(program)) {
        return Availability::missing(format!("{program} is not installed"));
    }
    let devices = ["/dev/fuse", "/dev/loop-control"];
    match devices.into_iter().find(|path| !Path::new(path).exists()) {
        Some(path) => Availability::missing(format!("{path} does not exist")),
        None => Availability::Present,
    }
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Absent {
        what: "a temporary directory with a plain name".to_owned(),
        hint: "set TMPDIR".to_owned(),
    })
}

/// A mounted image, unmounted when dropped.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts the file system in `image`, a file or a block device, at `directory`.
    pub(super) fn new(image: &Path, directory: &Path) -> Result<Self, Error> {
        let options = if image.starts_with("/dev") {
            "noatime"
        } else {
            "loop,noatime"
        };
        let (image, target) = (text(image)?, text(directory)?);
        run("mount", &["-t", "ext4", "-o", options, image, target])?;
        Ok(Self(directory.to_owned()))
    }

    /// Unmounts, and tells if that fails.
    pub(super) fn unmount(self) -> Result<(), Error> {
        let directory = text(&self.0)?.to_owned();
        std::mem::forget(self);
        run("umount", &[&directory]).map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // An error is on its way already.
        drop(Command::new("umount").arg(&self.0).output());
    }
}

/// The device, the daemon behind it, and its log.
pub(super) struct Rig {
    root: PathBuf,
    daemon_pid: Option<String>,
    loop_device: Option<String>,
}

impl Rig {
    /// Makes a file system, and a loop device on an export of it that logs what is written.
    ///
    /// The loop device goes through the page cache of the export, which passes writes on at once; the
    /// export does not get writes of less than a page right past it.
    pub(super) fn start(root: &Path) -> Result<Self, Error> {
        let mut rig = Self {
            root: root.to_owned(),
            daemon_pid: None,
            loop_device: None,
        };
        let device = rig.path("device");
        let sized = File::create(&device).and_then(|file| file.set_len(DEVICE_BYTES));
        sized.map_err(Error::file("create", &device))?;
        let file_system = ["-q", "-b", "4096", "-J", "size=4", "-E"];
        let lazily_nothing = ["lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        let arguments = [&file_system[..], &lazily_nothing, &[text(&device)?]].concat();
        run("mkfs.ext4", &arguments)?;
        let initial = rig.path("initial");
        std::fs::copy(&device, &initial).map_err(Error::file("write", &initial))?;
        for name in ["log", "export"] {
            let path = rig.path(name);
            File::create(&path).map_err(Error::file("create", &path))?;
        }
        rig.start_daemon()?;
        let export = rig.path("export");
        let loop_device = run("losetup", &["--find", "--show", text(&export)?])?;
        rig.loop_device = Some(loop_device);
        Ok(rig)
    }

    fn start_daemon(&mut self) -> Result<(), Error> {
        let [device, log, export, pid] =
            ["device", "log", "export", "pid"].map(|name| self.path(name));
        let device = format!("driver=file,node-name=device,filename={}", text(&device)?);
        let log = format!("driver=file,node-name=log,filename={}", text(&log)?);
        let writes = "driver=blklogwrites,node-name=writes,file=device,log=log,\
                      log-sector-size=512,log-super-update-interval=1";
        let export = format!(
            "type=fuse,id=export,node-name=writes,mountpoint={},writable=on,allow-other=off",
            text(&export)?
        );
        let arguments = [
            "--daemonize",
            "--pidfile",
            text(&pid)?,
            "--blockdev",
            &device,
            "--blockdev",
            &log,
            "--blockdev",
            writes,
            "--export",
            &export,
        ];
        run("qemu-storage-daemon", &arguments)?;
        let read = std::fs::read_to_string(&pid).map_err(Error::file("read", &pid))?;
        self.daemon_pid = Some(read.trim().to_owned());
        Ok(())
    }

    /// A file of the rig.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Mounts the logged device.
    pub(super) fn mount(&self, directory: &Path) -> Result<Mounted, Error> {
        let device = self.loop_device.as_deref().unwrap_or_default();
        Mounted::new(Path::new(device), directory)
    }

    /// Takes everything down; the log is complete then.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        if let Some(device) = self.loop_device.take() {
            run("losetup", &["--detach", &device])?;
        }
        self.stop_daemon();
        Ok(())
    }

    fn stop_daemon(&mut self) {
        let Some(pid) = self.daemon_pid.take() else {
            return;
        };
        drop(Command::new("kill").arg(&pid).output());
        let process = Path::new("/proc").join(&pid);
        for _ in 0..200 {
            if !process.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It unmounts by itself, unless it was killed.
        drop(Command::new("umount").arg(self.path("export")).output());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(device) = self.loop_device.take() {
            drop(run("losetup", &["--detach", &device]));
        }
        self.stop_daemon();
    }
}
