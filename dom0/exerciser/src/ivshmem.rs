// SPDX-License-Identifier: GPL-2.0-only
//! ivshmem-doorbell: MSI-X vectors that a process on the host raises as we say, each with a
//! record of what its handler saw. The layout is `ivshmem/shm.h`'s.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::irqs::Snapshot;
use crate::sysfs;

const OFF_READY: u64 = 0x010;
const OFF_CMD_SEQ: u64 = 0x100;
const OFF_CMD: u64 = 0x108;
const OFF_DONE: u64 = 0x188;
const OFF_STATUS: u64 = 0x190;
const OFF_RINGS: u64 = 0x198;
const OFF_LOST: u64 = 0x1a0;
const OFF_FIRST_LOST: u64 = 0x1a8;
const OFF_RAISED: u64 = 0x1000;
const OFF_RECORDS: u64 = 0x8000;
/// Bytes from one vector's numbers to the next, on the host's side and the handler's.
const STRIDE: usize = 0x40;
/// The kernel gives at most a page of such a file at a time.
const CHUNK: usize = 4096;

const CMD_STOP: u64 = 1;
const CMD_PACED: u64 = 2;
const CMD_STORM: u64 = 3;
const CMD_LINK: u64 = 4;
const STATUS_REFUSED: u64 = 1;

/// How long the host waits for one acknowledgement, in ms. Long, because a loaded emulator is slow.
const ACK_LIMIT_MS: u64 = 10_000;
/// Time for an interrupt too many to show up.
const GRACE: Duration = Duration::from_millis(150);

/// How vectors are rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Each vector only once its last ring was acknowledged: one interrupt for each ring.
    Paced,
    /// Without waiting: interrupts may merge, but the last ring must be seen.
    Storm,
}

/// What host and handler know of one vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Rings by the host.
    pub raised: u64,
    /// The last of them that an interrupt saw.
    pub acked: u64,
    /// Interrupts.
    pub calls: u64,
    /// Interrupts at which no new ring was found.
    pub stale: u64,
    /// Rings that came to share an interrupt with a later one.
    pub merged: u64,
    /// CPU of the last interrupt.
    pub cpu: u64,
    /// Interrupts at which the number of rings had gone down.
    pub backwards: u64,
    /// CPUs of all interrupts, as bits.
    pub cpus: u64,
}

impl Record {
    fn parse(raised: &[u8], record: &[u8]) -> Self {
        let word = |bytes: &[u8], index: usize| {
            let bytes = bytes.get(index * 8..index * 8 + 8).and_then(|word| word.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        Self {
            raised: word(raised, 0),
            acked: word(record, 0),
            calls: word(record, 1),
            stale: word(record, 2),
            merged: word(record, 3),
            cpu: word(record, 4),
            backwards: word(record, 5),
            cpus: word(record, 6),
        }
    }

    /// Whether the interrupts since `before` are those that the rings since then must have caused.
    ///
    /// # Errors
    /// What went wrong: lost, doubled, merged though paced, or nonsense in the memory.
    pub fn judge(&self, before: &Self, pace: Pace) -> Result<(), String> {
        let rings = self.raised.wrapping_sub(before.raised);
        let calls = self.calls.wrapping_sub(before.calls);
        // What was lost before, and found along with the first ring of this time, is old news.
        let carried = before.raised.wrapping_sub(before.acked);
        let merged = self.merged.wrapping_sub(before.merged).saturating_sub(carried);
        let stale = self.stale.wrapping_sub(before.stale);
        if self.backwards != before.backwards || self.acked > self.raised {
            return Err(format!("nonsense: saw ring {} of {}", self.acked, self.raised));
        }
        if self.acked != self.raised {
            let missing = self.raised - self.acked;
            return Err(format!("lost: the last {missing} of {rings} rings were never seen"));
        }
        if calls > rings {
            return Err(format!("doubled: {calls} interrupts for {rings} rings"));
        }
        if pace == Pace::Paced && (calls < rings || merged > 0) {
            return Err(format!(
                "lost: {calls} interrupts for {rings} paced rings, {merged} were merged"
            ));
        }
        if pace == Pace::Paced && stale > 0 {
            return Err(format!("doubled: {stale} interrupts without a new ring"));
        }
        Ok(())
    }
}

/// What the host says at the end of a command.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// Times that it rang, over all vectors.
    pub rings: u64,
}

/// One device.
#[derive(Debug, Clone)]
pub struct Ivshmem {
    /// Folder of the PCI device.
    pub pci: PathBuf,
    /// Its address, such as `0000:00:05.0`.
    pub address: String,
}

/// All ivshmem devices.
///
/// # Errors
/// sysfs is not as expected.
pub fn all() -> Result<Vec<Ivshmem>, String> {
    let found = sysfs::pci_devices(0x1af4, 0x1110)?;
    Ok(found.into_iter().map(|pci| Ivshmem { address: sysfs::last(&pci), pci }).collect())
}

/// A number of devices, with their handlers ready.
///
/// # Errors
/// There are not as many, or a driver did not bind.
pub fn expect(count: u64) -> Result<Vec<Ivshmem>, String> {
    let found = all()?;
    if found.len() as u64 != count {
        return Err(format!("expected {count} ivshmem, found {}", found.len()));
    }
    for device in &found {
        device.wait_ready()?;
    }
    Ok(found)
}

impl Ivshmem {
    /// Waits until the driver has requested all vectors.
    ///
    /// # Errors
    /// It has not after a while; the kernel's log says why.
    pub fn wait_ready(&self) -> Result<(), String> {
        let what = format!("driver of ivshmem {}", self.address);
        sysfs::wait_for(&what, Duration::from_secs(20), || {
            Ok(self.memory().and_then(|memory| memory.get(OFF_READY)).is_ok_and(|ready| ready > 0))
        })
    }

    /// Its shared memory.
    ///
    /// # Errors
    /// The driver is not bound.
    pub fn memory(&self) -> Result<Memory, String> {
        let path = self.pci.join("xenits_shm");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        Ok(Memory { file: file.map_err(|error| format!("{}: {error}", path.display()))? })
    }

    /// How many vectors its driver has requested.
    ///
    /// # Errors
    /// The driver is not bound.
    pub fn vectors(&self) -> Result<usize, String> {
        Ok(usize::try_from(self.memory()?.get(OFF_READY)?).unwrap_or(0))
    }

    /// Disables a vector's LPI at the ITS, or enables it; the device fires on.
    ///
    /// # Errors
    /// The driver is not bound, or cannot.
    pub fn hold(&self, vector: usize, hold: bool) -> Result<(), String> {
        sysfs::write(self.pci.join("xenits_hold"), &format!("{vector} {}", u8::from(hold)))
    }

    /// The name that a vector's interrupt has.
    pub fn irq_name(&self, vector: usize) -> String {
        format!("ivshmem-{}-{vector}", self.address)
    }

    /// Linux's interrupt numbers of all vectors, in order.
    ///
    /// # Errors
    /// One is missing, or is no MSI of the ITS.
    pub fn irqs(&self, now: &Snapshot) -> Result<Vec<u32>, String> {
        let its = |vector| {
            let irq = now.named(&self.irq_name(vector))?;
            if irq.is_its() { Ok(irq.number) } else { Err(format!("{} is {}", irq.name, irq.chip)) }
        };
        (0..self.vectors()?).map(its).collect()
    }
}

/// The shared memory of one device, through its file in sysfs.
pub struct Memory {
    file: File,
}

impl Memory {
    fn get(&self, offset: u64) -> Result<u64, String> {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, offset).map_err(|error| format!("ivshmem: {error}"))?;
        Ok(u64::from_le_bytes(word))
    }

    fn put(&self, offset: u64, value: u64) -> Result<(), String> {
        self.file
            .write_all_at(&value.to_le_bytes(), offset)
            .map_err(|error| format!("ivshmem: {error}"))
    }

    fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; length];
        for (i, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            self.file
                .read_exact_at(chunk, offset + (i * CHUNK) as u64)
                .map_err(|error| format!("ivshmem: {error}"))?;
        }
        Ok(bytes)
    }

    /// The records of the first `count` vectors.
    ///
    /// # Errors
    /// The driver went away.
    pub fn records(&self, count: usize) -> Result<Vec<Record>, String> {
        // The handler's side first: what it has seen was raised before.
        let records = self.bytes(OFF_RECORDS, count * STRIDE)?;
        let raised = self.bytes(OFF_RAISED, count * STRIDE)?;
        Ok(raised
            .chunks(STRIDE)
            .zip(records.chunks(STRIDE))
            .map(|(raised, record)| Record::parse(raised, record))
            .collect())
    }

    /// The record of one vector.
    ///
    /// # Errors
    /// The driver went away.
    pub fn record(&self, vector: usize) -> Result<Record, String> {
        let at = (vector * STRIDE) as u64;
        let record = self.bytes(OFF_RECORDS + at, STRIDE)?;
        let raised = self.bytes(OFF_RAISED + at, 8)?;
        Ok(Record::parse(&raised, &record))
    }

    /// Waits until an interrupt has seen this ring of a vector; gives the record of then.
    ///
    /// # Errors
    /// None did within the limit that the host also has.
    pub fn wait_acked(&self, vector: usize, ring: u64) -> Result<Record, String> {
        let mut record = Record::default();
        let limit = Duration::from_millis(ACK_LIMIT_MS);
        sysfs::wait_for(&format!("vector {vector}: interrupt of ring {ring}"), limit, || {
            record = self.record(vector)?;
            Ok(record.acked >= ring)
        })?;
        Ok(record)
    }

    fn command(&self, fields: [u64; 6]) -> Result<u64, String> {
        for (i, field) in fields.iter().enumerate() {
            self.put(OFF_CMD + 8 * i as u64, *field)?;
        }
        let sequence = self.get(OFF_CMD_SEQ)? + 1;
        self.put(OFF_CMD_SEQ, sequence)?;
        Ok(sequence)
    }

    /// Has the host ring the first `count` vectors `rounds` times each (0: until [`Self::stop`]),
    /// with a pause in between.
    ///
    /// # Errors
    /// The driver went away.
    pub fn ring(
        &self,
        pace: Pace,
        count: usize,
        rounds: u64,
        pause_us: u64,
    ) -> Result<u64, String> {
        let command = if pace == Pace::Paced { CMD_PACED } else { CMD_STORM };
        self.command([command, 0, count as u64, rounds, pause_us, ACK_LIMIT_MS])
    }

    /// Has QEMU take the links of all NICs down and up again.
    ///
    /// # Errors
    /// The driver went away.
    pub fn flap_links(&self, times: u64) -> Result<u64, String> {
        self.command([CMD_LINK, 0, 0, times, 0, ACK_LIMIT_MS])
    }

    /// Ends what goes on, and waits for the results.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn stop(&self) -> Result<Reply, String> {
        self.wait(self.command([CMD_STOP, 0, 0, 0, 0, ACK_LIMIT_MS])?)
    }

    /// Waits for the end of a command, and a little longer for interrupts too many.
    ///
    /// # Errors
    /// The host refused the command, or waited in vain for an acknowledgement.
    pub fn wait(&self, sequence: u64) -> Result<Reply, String> {
        let limit = Duration::from_secs(120);
        sysfs::wait_for("raiser on the host", limit, || Ok(self.get(OFF_DONE)? == sequence))?;
        let reply = Reply { rings: self.get(OFF_RINGS)? };
        let lost = self.get(OFF_LOST)?;
        if self.get(OFF_STATUS)? == STATUS_REFUSED {
            return Err("the raiser on the host refused the command: see its log".to_owned());
        }
        if lost > 0 {
            let first = self.get(OFF_FIRST_LOST)?;
            return Err(format!("lost: no interrupt on {lost} vectors, the first is {first}"));
        }
        std::thread::sleep(GRACE);
        Ok(reply)
    }
}

/// Rings that may still come on a CPU that a vector has left, before it counts as misrouted.
const PATIENCE: u64 = 10;

/// Follows a vector to the CPU that its affinity names now. Gives the number of rings that came
/// elsewhere although the host made them after the affinity was written: late ones.
///
/// # Errors
/// Rings keep coming on another CPU, or do not come.
pub fn follow(memory: &Memory, vector: usize, irq: u32) -> Result<u64, String> {
    let target = sysfs::effective_cpu(irq)?;
    let mut cpu = 0;
    for late in 0..PATIENCE {
        // The host may be making a ring at this moment, so the one after it is waited for.
        let now = memory.record(vector)?;
        cpu = memory.wait_acked(vector, now.raised + 1)?.cpu;
        if cpu == u64::from(target) {
            return Ok(late);
        }
    }
    Err(format!(
        "misrouted: vector {vector} (irq {irq}) is for CPU {target}, but keeps coming on {cpu}"
    ))
}

/// As [`follow`], for many vectors at once.
///
/// # Errors
/// As [`follow`], for the first of them.
pub fn follow_all(memory: &Memory, vectors: &[(usize, u32)]) -> Result<u64, String> {
    let count = vectors.iter().map(|(vector, _)| vector + 1).max().unwrap_or(0);
    let start = memory.records(count)?;
    let came = |record: &Record, start: &Record| record.acked > start.raised;
    let mut now = start.clone();
    // Without judging: a vector that does not come is named below.
    let all = |now: &[Record]| {
        vectors.iter().all(|(vector, _)| match (now.get(*vector), start.get(*vector)) {
            (Some(now), Some(start)) => came(now, start),
            _ => false,
        })
    };
    let limit = Duration::from_millis(ACK_LIMIT_MS);
    let _ = sysfs::wait_for("all vectors", limit, || {
        now = memory.records(count)?;
        Ok(all(&now))
    });
    let mut late = 0;
    for (vector, irq) in vectors {
        let target = u64::from(sysfs::effective_cpu(*irq)?);
        match (now.get(*vector), start.get(*vector)) {
            (Some(now), Some(start)) if came(now, start) && now.cpu == target => {}
            _ => late += 1 + follow(memory, *vector, *irq)?,
        }
    }
    Ok(late)
}

/// Judges all vectors of a device.
///
/// # Errors
/// How many are wrong, and the first of them.
pub fn judge(before: &[Record], after: &[Record], pace: Pace) -> Result<(), String> {
    let verdicts = before.iter().zip(after).map(|(before, after)| after.judge(before, pace));
    first_of(verdicts, "vector")
}

/// Counts the errors, and shows the first with its index.
fn first_of(verdicts: impl Iterator<Item = Result<(), String>>, what: &str) -> Result<(), String> {
    let bad: Vec<(usize, String)> =
        verdicts.enumerate().filter_map(|(i, verdict)| Some((i, verdict.err()?))).collect();
    match bad.first() {
        None => Ok(()),
        Some((i, reason)) => Err(format!("{} bad {what}s, the first is {i}: {reason}", bad.len())),
    }
}

/// Rings vectors and checks records, interrupt counts, and CPUs against each other.
///
/// # Errors
/// The first thing that does not fit.
pub fn ring_and_check(
    device: &Ivshmem,
    pace: Pace,
    rounds: u64,
    pause_us: u64,
) -> Result<u64, String> {
    let count = device.vectors()?;
    let memory = device.memory()?;
    let irqs_before = sysfs::interrupts()?;
    let irqs = device.irqs(&irqs_before)?;
    let before = memory.records(count)?;
    let waited = memory.wait(memory.ring(pace, count, rounds, pause_us)?);
    let after = memory.records(count)?;
    let delta = sysfs::interrupts()?.since(&irqs_before);
    judge(&before, &after, pace)?;
    let reply = waited?;
    if reply.rings != rounds * count as u64 {
        return Err(format!("the host rang {} times, not {rounds} x {count}", reply.rings));
    }
    let verdicts = irqs.iter().zip(before.iter().zip(&after)).map(|(number, (before, after))| {
        let irq = delta.irqs.get(number).ok_or_else(|| format!("irq {number} is gone"))?;
        let target = sysfs::effective_cpu(*number)?;
        on_target(irq.counts.iter().map(|(cpu, count)| (*cpu, *count)), target)?;
        if irq.total() != after.calls - before.calls {
            let calls = after.calls - before.calls;
            return Err(format!("irq {number} came {} times, its handler {calls}", irq.total()));
        }
        if after.cpu != u64::from(target) {
            return Err(format!("the last interrupt was on CPU {}, not {target}", after.cpu));
        }
        Ok(())
    });
    first_of(verdicts, "vector")?;
    Ok(reply.rings)
}

/// All of an interrupt's counts are on its target.
fn on_target(counts: impl Iterator<Item = (u32, u64)>, target: u32) -> Result<(), String> {
    for (cpu, count) in counts {
        if cpu != target && count > 0 {
            return Err(format!("{count} interrupts on CPU {cpu}, the target is {target}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../ivshmem/shm.h");

    fn defined(name: &str) -> u64 {
        let word = format!("XENITS_SHM_{name}");
        let value = HEADER
            .lines()
            .find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some("#define") && words.next() == Some(&word))
                    .then(|| words.next().unwrap_or_default().to_owned())
            })
            .unwrap_or_else(|| panic!("{word} is not defined"));
        value.strip_prefix("0x").map_or_else(
            || value.parse().expect("decimal"),
            |hex| u64::from_str_radix(hex, 16).expect("hexadecimal"),
        )
    }

    #[test]
    fn offsets_are_those_of_the_header() {
        for (name, value) in [
            ("OFF_READY", OFF_READY),
            ("OFF_CMD_SEQ", OFF_CMD_SEQ),
            ("OFF_CMD", OFF_CMD),
            ("OFF_CMD_FIRST", OFF_CMD + 8),
            ("OFF_CMD_COUNT", OFF_CMD + 16),
            ("OFF_CMD_ROUNDS", OFF_CMD + 24),
            ("OFF_CMD_PAUSE_US", OFF_CMD + 32),
            ("OFF_CMD_LIMIT_MS", OFF_CMD + 40),
            ("OFF_DONE", OFF_DONE),
            ("OFF_STATUS", OFF_STATUS),
            ("OFF_RINGS", OFF_RINGS),
            ("OFF_LOST", OFF_LOST),
            ("OFF_FIRST_LOST", OFF_FIRST_LOST),
            ("OFF_RAISED", OFF_RAISED),
            ("OFF_RECORDS", OFF_RECORDS),
            ("RAISED_STRIDE", STRIDE as u64),
            ("RECORD_STRIDE", STRIDE as u64),
            ("CMD_STOP", CMD_STOP),
            ("CMD_PACED", CMD_PACED),
            ("CMD_STORM", CMD_STORM),
            ("CMD_LINK", CMD_LINK),
            ("STATUS_REFUSED", STATUS_REFUSED),
        ] {
            assert_eq!(value, defined(name), "{name}");
        }
    }

    #[test]
    fn records_are_parsed_in_the_order_of_the_header() {
        let mut bytes = [0; STRIDE];
        let names = ["ACKED", "CALLS", "STALE", "MERGED", "CPU", "BACKWARDS", "CPUS"];
        for (i, name) in names.iter().enumerate() {
            let at = usize::try_from(defined(&format!("REC_{name}"))).expect("small");
            bytes[at] = u8::try_from(i).expect("small") + 1;
        }
        let record = Record::parse(&[9, 0, 0, 0, 0, 0, 0, 0], &bytes);
        let Record { raised, acked, calls, stale, merged, cpu, backwards, cpus } = record;
        assert_eq!(
            [raised, acked, calls, stale, merged, cpu, backwards, cpus],
            [9, 1, 2, 3, 4, 5, 6, 7]
        );
    }

    fn after(rings: u64, calls: u64) -> Record {
        Record { raised: 10 + rings, acked: 10 + rings, calls: 7 + calls, ..start() }
    }

    fn start() -> Record {
        Record { raised: 10, acked: 10, calls: 7, stale: 2, merged: 3, ..Record::default() }
    }

    fn verdict(record: Record, pace: Pace) -> String {
        record.judge(&start(), pace).err().unwrap_or_else(|| "good".to_owned())
    }

    #[test]
    fn one_interrupt_for_each_paced_ring() {
        assert_eq!(verdict(after(5, 5), Pace::Paced), "good");
        assert_eq!(verdict(after(0, 0), Pace::Paced), "good");
        assert!(verdict(after(5, 4), Pace::Paced).starts_with("lost"));
        assert!(verdict(after(5, 6), Pace::Paced).starts_with("doubled"));
    }

    #[test]
    fn a_ring_that_nobody_saw_is_lost_whatever_the_pace() {
        for pace in [Pace::Paced, Pace::Storm] {
            let record = Record { acked: 14, ..after(5, 4) };
            assert!(verdict(record, pace).starts_with("lost: the last 1 of 5"));
        }
    }

    #[test]
    fn a_lost_one_does_not_hide_a_doubled_one() {
        let record = Record { stale: 3, merged: 4, ..after(5, 5) };
        assert!(verdict(record, Pace::Paced).starts_with("lost"));
        let record = Record { stale: 3, ..after(5, 5) };
        assert!(verdict(record, Pace::Paced).starts_with("doubled"));
    }

    #[test]
    fn what_was_lost_before_is_not_reported_again() {
        let before = Record { raised: 12, ..start() };
        let record = Record { raised: 17, acked: 17, calls: 12, merged: 5, ..start() };
        assert_eq!(record.judge(&before, Pace::Paced), Ok(()));
        let record = Record { merged: 6, ..record };
        assert!(record.judge(&before, Pace::Paced).is_err());
    }

    #[test]
    fn a_storm_may_merge_but_not_multiply() {
        let record = Record { merged: 5, stale: 3, ..after(5, 1) };
        assert_eq!(verdict(record, Pace::Storm), "good");
        assert!(verdict(after(5, 6), Pace::Storm).starts_with("doubled"));
    }

    #[test]
    fn nonsense_is_told_apart() {
        let record = Record { acked: 16, ..after(5, 5) };
        assert!(verdict(record, Pace::Paced).starts_with("nonsense"));
        let record = Record { backwards: 1, ..after(5, 5) };
        assert!(verdict(record, Pace::Paced).starts_with("nonsense"));
    }

    #[test]
    fn the_first_bad_vector_is_named() {
        let before = [start(); 3];
        let records = [after(5, 5), after(5, 4), after(5, 6)];
        let reason = judge(&before, &records, Pace::Paced).expect_err("bad");
        assert!(reason.starts_with("2 bad vectors, the first is 1: lost"), "{reason}");
    }

    #[test]
    fn counts_must_be_on_the_target() {
        assert_eq!(on_target([(0, 0), (3, 9)].into_iter(), 3), Ok(()));
        assert!(on_target([(0, 1), (3, 8)].into_iter(), 3).is_err());
    }
}
