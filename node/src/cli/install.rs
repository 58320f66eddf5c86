//! `mesh up --install` and `mesh down --uninstall`: the node as a service of the user's systemd, started at each login.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    Context,
    arguments::Node,
    error::{CliError, Exit},
    up::{node_command, wait_for_node},
};

/// What the service may not do. The node reads and writes wherever folders are, so the file system stays as it is.
/// `RestrictSUIDSGID=` is not among it: it forbids `openat2`, and with that everything in folders.
const FENCES: &str = "\
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @obsolete @resources
SystemCallErrorNumber=EPERM
";

/// What a user's systemd can do only within a user namespace. `/tmp` and `/run` stay, for folders may be there, and what is
/// mounted later is seen; /proc and the kernel's log a user's systemd cannot close.
const WALLS: &str = "\
PrivateUsers=yes
CapabilityBoundingSet=
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectSystem=full
";

/// Writes the unit and has systemd start it, now and at each login.
pub(super) async fn install(context: &mut Context, node: &Node) -> Result<(), CliError> {
    context.home.create()?;
    let (unit, path) = place(context.home.root())?;
    let command = node_command(&context.home, node, context.verbose)?;
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(&path, text(&command, WALLS))?;
    systemctl(&["daemon-reload"])?;
    if context.client.shutdown().await.is_ok() {
        super::up::wait_for_end(context).await?;
    }
    let is_walled = systemctl(&["enable", "--now", &unit]).is_ok();
    if !is_walled {
        fs::write(&path, text(&command, ""))?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["enable", "--now", &unit])?;
    }
    let status = wait_for_node(context).await?;
    if context.screen.json {
        return context.screen.value(&status);
    }
    context.screen.line(format!(
        "The node of {} runs, and will whenever you log in ({}).",
        status.name,
        path.display()
    ))?;
    if !is_walled {
        context.screen.line("  systemd could not confine it in a user namespace; it is confined less")?;
    }
    context.screen.line("  also before anybody logs in:  loginctl enable-linger")?;
    context.screen.line("  take that back:               mesh down --uninstall")
}

/// Has systemd stop the node and forget it.
pub(super) fn uninstall(context: &mut Context) -> Result<(), CliError> {
    let (unit, path) = place(context.home.root())?;
    if !path.exists() {
        return Err(CliError::new(
            Exit::Failed,
            "not_installed",
            format!("The node of this home is no service: there is no {}.", path.display()),
            "`mesh down` stops it; `mesh up --install` makes it one.",
        ));
    }
    systemctl(&["disable", "--now", &unit])?;
    fs::remove_file(&path)?;
    systemctl(&["daemon-reload"])?;
    context.screen.note("The node has stopped, and starts by itself no more.")
}

/// The name of the unit of a home, and its file.
fn place(home: &Path) -> Result<(String, PathBuf), CliError> {
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = config.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    let config = config.ok_or_else(|| io::Error::other("neither XDG_CONFIG_HOME nor HOME says where it belongs"))?;
    let hash = blake3::hash(home.as_os_str().as_encoded_bytes()).to_hex();
    let unit = format!("meshwork-{}.service", hash.get(..8).unwrap_or_default());
    Ok((unit.clone(), config.join("systemd/user").join(unit)))
}

/// With `Type=exec` systemd tells at once when it cannot build what confines the service.
fn text(command: &Command, walls: &str) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    format!(
        "[Unit]\nDescription=Meshwork node\n\n[Service]\nType=exec\nExecStart={}\nRestart=on-failure\nRestartSec=2\n\
         TimeoutStopSec=15\n{FENCES}{walls}\n[Install]\nWantedBy=default.target\n",
        words.join(" ")
    )
}

/// A word of a command line, as systemd reads one (systemd.service(5)).
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

fn systemctl(words: &[&str]) -> Result<(), CliError> {
    let refused = |reason: String| {
        CliError::new(
            Exit::Failed,
            "no_systemd",
            format!("systemctl --user {} did not work: {reason}.", words.join(" ")),
            "Where no systemd runs for you, start the node with `mesh up` from your session's own autostart.",
        )
    };
    let Output { status, stderr, .. } =
        Command::new("systemctl").arg("--user").args(words).output().map_err(|error| refused(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    Err(refused(String::from_utf8_lossy(&stderr).trim().trim_end_matches('.').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_each_word_as_it_was() {
        let mut command = Command::new("/opt/my \"mesh\"/100%/mesh");
        command.args(["daemon", "--home", "/home/$USER/a\\b"]);
        let text = text(&command, WALLS);
        let start = "ExecStart=\"/opt/my \\\"mesh\\\"/100%%/mesh\" \"daemon\" \"--home\" \"/home/$$USER/a\\\\b\"";
        assert!(text.lines().any(|line| line == start), "{text}");
        assert!(
            text.contains("\nNoNewPrivileges=yes\n")
                && text.contains(WALLS)
                && text.ends_with("WantedBy=default.target\n")
        );
    }

    #[test]
    fn each_home_has_a_unit_of_its_own() {
        let unit = |home: &str| place(Path::new(home)).expect("a place").0;
        assert_ne!(unit("/home/a"), unit("/home/b"));
        assert_eq!(unit("/home/a"), unit("/home/a"));
    }
}
