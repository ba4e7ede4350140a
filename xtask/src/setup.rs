// SPDX-License-Identifier: AGPL-3.0-only
//! Installs what a fresh Debian lacks for building and testing. Cheap when nothing is missing.
//! In: what is there already. Out: apt packages, a plugin of RabbitMQ, Rust components, and whatever `e2e/setup.sh`
//! prepares. Starts no service and touches nothing else that is installed already.

use anyhow::{Context, Result, bail, ensure};

use crate::test::linted;
use crate::tool::Tool;
use crate::workspace;

/// Something the project needs: how to see that it is there, and which Debian packages bring it.
struct Need {
    what: &'static str,
    probe: &'static str,
    packages: &'static [&'static str],
}

const NEEDS: &[Need] = &[
    // zstd, ring and jemalloc bring C code; everything else is Rust.
    Need {
        what: "a C compiler and make",
        probe: "cc --version && make --version",
        packages: &["gcc", "libc6-dev", "make"],
    },
    Need { what: "git", probe: "git --version", packages: &["git"] },
];

/// The message broker. A plugin routes by the hash of a header; RabbitMQ ships it, switched off.
const BROKER: Need =
    Need { what: "RabbitMQ", probe: "test -x /usr/sbin/rabbitmq-plugins", packages: &["rabbitmq-server"] };
const BROKER_PLUGIN: &str = "rabbitmq_consistent_hash_exchange";

/// What the end-to-end tests need on top: real clients in their own languages.
const END_TO_END_NEEDS: &[Need] = &[
    Need { what: "Python", probe: "python3 --version", packages: &["python3"] },
    Need { what: "Python's venv", probe: "python3 -c import\u{a0}ensurepip", packages: &["python3-venv"] },
    Need { what: "Node.js 20", probe: NODE_20, packages: &["nodejs"] },
    // The dashboard is looked at in it.
    Need { what: "Chromium", probe: CHROMIUM, packages: &["chromium"] },
    Need { what: "npm", probe: "npm --version", packages: &["npm"] },
    // One of the clients' compression libraries is built from C++.
    Need { what: "a C++ compiler", probe: "c++ --version", packages: &["g++"] },
    Need { what: "make", probe: "make --version", packages: &["make"] },
    // The worker in Go, with the libraries as Debian packages them.
    Need { what: "Go", probe: "go version", packages: &["golang-go"] },
    Need { what: "protoc", probe: "protoc --version", packages: &["protobuf-compiler"] },
    Need { what: "protoc's plugin for Go", probe: "protoc-gen-go --version", packages: &["protoc-gen-go"] },
    Need {
        what: "Go's AMQP library",
        probe: "test -d /usr/share/gocode/src/github.com/rabbitmq/amqp091-go",
        packages: &["golang-github-rabbitmq-amqp091-go-dev"],
    },
    Need {
        what: "Go's Protobuf library",
        probe: "test -d /usr/share/gocode/src/google.golang.org/protobuf",
        packages: &["golang-google-protobuf-dev"],
    },
];

/// Google's own build of it does as well: Ubuntu has no such package.
const CHROMIUM: &str = "sh -c command\u{a0}-v\u{a0}chromium\u{a0}||command\u{a0}-v\u{a0}google-chrome";

const NODE_20: &str = "node -e process.exit(parseInt(process.versions.node)<20?1:0)";

const COMPONENTS: &[(&str, &str)] =
    &[("rustfmt", "cargo fmt --version"), ("clippy", "cargo clippy --version")];

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let end_to_end = workspace::root().join("e2e").is_dir();
    let needs = NEEDS.iter().chain([&BROKER]).chain(END_TO_END_NEEDS.iter().filter(|_| end_to_end));
    install(&needs.filter(|need| !is_there(need)).collect::<Vec<_>>())?;
    enable_broker_plugin()?;
    broker_takes_messages()?;
    for (component, probe) in COMPONENTS {
        if !Tool::new(probe).succeeds() {
            Tool::new("rustup component add")
                .argument(component)
                .run_attached()
                .with_context(|| format!("{component} is missing and rustup could not add it"))?;
        }
    }
    if workspace::root().join("e2e/setup.sh").is_file() {
        // It builds what is in Rust and not of the workspace.
        linted(Tool::new("bash e2e/setup.sh")).run_attached()?;
    }
    Ok(())
}

/// Enables the plugin: at once if RabbitMQ runs, and for its next start if it doesn't.
fn enable_broker_plugin() -> Result<()> {
    let plugins = |line: &str| Tool::new(&format!("{}rabbitmq-plugins --quiet {line}", sudo()));
    if plugins(&format!("is_enabled {BROKER_PLUGIN}")).succeeds() {
        return Ok(());
    }
    plugins(&format!("enable {BROKER_PLUGIN}"))
        .run_attached()
        .with_context(|| format!("RabbitMQ's plugin {BROKER_PLUGIN} could not be enabled"))
}

/// With an alarm RabbitMQ takes no message, and everything that publishes waits without a word.
fn broker_takes_messages() -> Result<()> {
    let diagnostics = |line: &str| Tool::new(&format!("{}rabbitmq-diagnostics --quiet {line}", sudo()));
    // One that doesn't run is missed soon enough.
    ensure!(
        !diagnostics("ping").succeeds() || diagnostics("check_alarms").succeeds(),
        "RabbitMQ has an alarm and takes no messages: it is short of disk or memory (`rabbitmq-diagnostics alarms`); \
         a target directory that nobody needs is a good thing to delete"
    );
    Ok(())
}

fn is_there(need: &Need) -> bool {
    // A no-break space stands for a space inside one argument.
    let mut words = need.probe.split(' ').map(|word| word.replace('\u{a0}', " "));
    let program = words.next().unwrap_or_default();
    words.fold(Tool::new(&program), |tool, word| tool.argument(&word)).succeeds()
}

fn install(missing: &[&Need]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|need| need.what).collect::<Vec<_>>().join(", ");
    let packages =
        missing.iter().flat_map(|need| need.packages.iter().copied()).collect::<Vec<_>>().join(" ");
    if !Tool::new("apt-get --version").succeeds() {
        bail!(
            "missing: {names}; this is not Debian, so please install them yourself (Debian's packages: {packages})"
        );
    }
    println!("missing: {names}; installing {packages}");
    let sudo = sudo();
    apt(&format!("{sudo}apt-get update -qq"))?;
    apt(&format!("{sudo}apt-get install -y -qq --no-install-recommends {packages}"))?;
    let still = missing.iter().filter(|need| !is_there(need)).map(|need| need.what).collect::<Vec<_>>();
    // An old Debian may have an old version only.
    ensure!(still.is_empty(), "still missing after installing {packages}: {}", still.join(", "));
    Ok(())
}

fn apt(line: &str) -> Result<()> {
    Tool::new(line).environment("DEBIAN_FRONTEND", "noninteractive").run_attached()
}

/// Only root may write there; asking costs no dependency.
fn sudo() -> &'static str {
    if Tool::new("test -w /usr/bin").succeeds() { "" } else { "sudo " }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_seen() {
        assert!(is_there(&Need { what: "the shell", probe: "sh -c exit\u{a0}0", packages: &[] }));
    }

    #[test]
    fn what_is_missing_is_seen() {
        assert!(!is_there(&Need {
            what: "a dream",
            probe: "no-such-tool-anywhere --version",
            packages: &[]
        }));
        assert!(!is_there(&Need { what: "a broken tool", probe: "sh -c exit\u{a0}1", packages: &[] }));
    }
}
