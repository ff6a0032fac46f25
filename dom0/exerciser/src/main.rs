// SPDX-License-Identifier: GPL-2.0-only
//! The first process of Dom0 in xen-its's tests: it exercises MSI-X devices as the kernel's
//! command line says (`xenits.test=<scenario>[,name=value...]`), reports to the console, and
//! powers off.
//!
//! Lines for the host, each in one write:
//!
//! | line | meaning |
//! | --- | --- |
//! | `XENITS: info key=value...` | what it runs on |
//! | `XENITS: plan <n>` | checks that follow |
//! | `XENITS: ok <i> <name> key=value...` | a check passed |
//! | `XENITS: not ok <i> <name> <reason>` | a check failed |
//! | `XENITS: irq <irq> <chip>/<hwirq> <name> <count>...` | final table, a count for each CPU on-line |
//! | `XENITS: done` | the end; without it, the run counts as failed |

mod hotplug;
mod irqs;
mod ivshmem;
mod livepatch;
mod move_irqs;
mod net;
mod nvme;
mod options;
mod rebind;
mod report;
mod sata;
mod scenario;
mod storm;
mod sysfs;
mod xen;

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::options::Options;
use crate::report::Report;

/// Seconds after which a run that hangs is ended; option `timeout` changes it.
const TIMEOUT: u64 = 300;

fn main() {
    let console = match prepare() {
        Ok(console) => console,
        Err(reason) => {
            eprintln!("XENITS: not ok 0 prepare {reason}");
            power_off();
        }
    };
    let mut report = Report::new(console);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exercise(&mut report)));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => report.check("setup", &Err(reason)),
        Err(_) => report.check("setup", &Err("the exerciser panicked".to_owned())),
    }
    report.line("done");
    power_off();
}

/// Mounts what the kernel offers and opens the console.
fn prepare() -> Result<File, String> {
    const NONE: Option<&CStr> = None;
    for (source, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match mount(source, target, source, MountFlags::empty(), NONE) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(format!("cannot mount {target}: {error}")),
        }
    }
    // Errors of the kernel's only: lesser messages would tear our lines apart. All of them stay
    // in its log, which the scenarios read.
    sysfs::write("/proc/sys/kernel/printk", "4")?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
        .map_err(|error| format!("/dev/console: {error}"))
}

fn exercise(report: &mut Report) -> Result<(), String> {
    let options = Options::from_cmdline(&sysfs::read("/proc/cmdline")?)?;
    let xen = xen::present();
    report.line(&format!(
        "info scenario={} kernel={} cpus={} xen={}",
        options.scenario,
        sysfs::read("/proc/sys/kernel/osrelease")?,
        sysfs::online()?.len(),
        if xen { "yes" } else { "no" }
    ));
    watch(options.number("timeout", TIMEOUT)?)?;
    // What is counted must not be stirred by anything else.
    let quick = options.scenario == "count";
    if !quick || options.text("key").is_some() {
        let fault = fault(options.text("sabotage"))?;
        sysfs::load_modules(|name| {
            if name == "xenits_ivshmem.ko" { fault.clone() } else { String::new() }
        })?;
    }
    if options.scenario == "shell" {
        return shell(report);
    }
    let checks = scenario::prepare(&options)?;
    // What a counter was before the checks tells a leak from what the devices need.
    let key = xen.then(|| options.text("key").unwrap_or(if quick { "" } else { "L" }));
    let key = key.filter(|key| !key.is_empty());
    if let Some(key) = key.filter(|_| ["rebind", "hotplug"].contains(&options.scenario.as_str())) {
        press(report, key, "begin");
    }
    scenario::run(checks, report);
    report.irqs(&sysfs::interrupts()?);
    if let Some(key) = key {
        press(report, key, "end");
    }
    report.line(&format!("info failures={}", report.failures()));
    Ok(())
}

/// Has Xen print what a debug key of its stands for, after a line that says when.
fn press(report: &mut Report, key: &str, when: &str) {
    report.line(&format!("info xen-key={key} when={when}"));
    if let Err(reason) = xen::debug_keys(key) {
        report.check("xen-key", &Err(reason));
    }
}

/// A fault for the ivshmem driver to make, as `ignore:5`, which shows that the checks notice: its
/// module parameter.
fn fault(text: Option<&str>) -> Result<String, String> {
    let Some(text) = text else { return Ok(String::new()) };
    let (kind, vector) = text.split_once(':').ok_or("sabotage is <kind>:<vector>")?;
    let vector: u8 = vector.parse().map_err(|_| format!("sabotage: odd vector '{vector}'"))?;
    match kind {
        "ignore" | "once" | "double" | "cpu" => Ok(format!("break_{kind}={vector}")),
        _ => Err(format!("sabotage: no fault '{kind}'")),
    }
}

/// Ends a run that hangs, with a line that says so.
fn watch(seconds: u64) -> Result<(), String> {
    let console = OpenOptions::new().write(true).open("/dev/console").map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        let mut report = Report::new(console);
        report.check("watchdog", &Err(format!("no end after {seconds} s")));
        if let Ok(now) = sysfs::interrupts() {
            report.irqs(&now);
        }
        report.line("done");
        power_off();
    });
    Ok(())
}

/// A shell on the console, until the user leaves it.
fn shell(report: &mut Report) -> Result<(), String> {
    sysfs::write("/proc/sys/kernel/printk", "7")?;
    report.line("info shell: leave it with 'exit' to power off");
    let mut command = std::process::Command::new("/bin/busybox");
    // A session of its own, with the console as its terminal, gives the shell job control.
    command
        .arg0("setsid")
        .args(["-c", "/bin/busybox", "sh", "-l"])
        .env("PATH", "/bin")
        .env("HOME", "/");
    command.status().map_err(|error| format!("/bin/busybox: {error}"))?;
    Ok(())
}

fn power_off() -> ! {
    let _ = reboot(RebootCommand::PowerOff);
    // The first process must not end; without power control the host's time limit ends the run.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
