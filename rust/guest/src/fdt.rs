// SPDX-License-Identifier: GPL-2.0-only
//! The little of a flattened device tree that is needed, in one walk.

/// What the device tree says about the machine.
#[derive(Clone, Copy)]
pub struct Machine {
    /// RAM, as start and size.
    pub memory: [(u64, u64); 8],
    /// How many of them there are.
    pub memories: usize,
    /// GICD.
    pub gicd: (u64, u64),
    /// GICR regions.
    pub gicr: [(u64, u64); 8],
    /// How many of them there are.
    pub gicrs: usize,
    /// The first ITS.
    pub its: (u64, u64),
    /// A PL011.
    pub uart: (u64, u64),
    /// The configuration space of a PCI host bridge (ECAM).
    pub pci: (u64, u64),
    /// Its window for memory below 4 GB.
    pub pci_window: (u64, u64),
    /// MPIDR of each CPU.
    pub cpus: [u64; crate::boot::MAX_CPUS],
    /// How many of them there are.
    pub ncpus: usize,
    /// PSCI by HVC, not SMC.
    pub hvc: bool,
    /// There is a Xen below.
    pub xen: bool,
    /// The kernel's command line.
    pub bootargs: &'static str,
}

/// What is known of a node while its properties come.
#[derive(Clone, Copy, Default)]
struct Node {
    /// Cells that its children's addresses have.
    address_cells: usize,
    size_cells: usize,
    kind: Kind,
    reg: Option<(usize, usize)>,
    ranges: Option<(usize, usize)>,
    regions: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Kind {
    #[default]
    Other,
    Gic,
    Its,
    Uart,
    Pci,
    Memory,
    Cpu,
}

struct Blob(*const u8);

impl Blob {
    fn word(&self, at: usize) -> u32 {
        // SAFETY: the walk stays inside the blob, whose structure is trusted
        // as firmware's is. Offsets are multiples of 4.
        u32::from_be(unsafe { self.0.add(at).cast::<u32>().read_volatile() })
    }

    fn bytes(&self, at: usize, len: usize) -> &'static [u8] {
        // SAFETY: as above; the blob is never written.
        unsafe { core::slice::from_raw_parts(self.0.add(at), len) }
    }

    fn string(&self, at: usize) -> &'static [u8] {
        let mut len = 0;
        while self.bytes(at + len, 1) != [0] {
            len += 1;
        }
        self.bytes(at, len)
    }

    fn cells(&self, at: usize, count: usize) -> u64 {
        (0..count).fold(0, |value, n| (value << 32) | u64::from(self.word(at + 4 * n)))
    }
}

fn contains(list: &[u8], name: &str) -> bool {
    list.split(|byte| *byte == 0).any(|one| one == name.as_bytes())
}

/// Reads the device tree at `address`; `None` if there is none.
pub fn parse(address: u64) -> Option<Machine> {
    let blob = Blob(address as *const u8);
    if address == 0 || blob.word(0) != 0xd00d_feed {
        return None;
    }
    let strings = blob.word(12) as usize;
    let mut at = blob.word(8) as usize;
    let mut machine = Machine {
        memory: [(0, 0); 8],
        memories: 0,
        gicd: (0, 0),
        gicr: [(0, 0); 8],
        gicrs: 0,
        its: (0, 0),
        uart: (0, 0),
        pci: (0, 0),
        pci_window: (0, 0),
        cpus: [0; crate::boot::MAX_CPUS],
        ncpus: 0,
        hvc: false,
        xen: false,
        bootargs: "",
    };
    let mut stack = [Node::default(); 16];
    let mut depth = 0;
    loop {
        let token = blob.word(at);
        at += 4;
        match token {
            1 => {
                let name = blob.string(at);
                at = (at + name.len() + 4) & !3;
                depth += 1;
                *stack.get_mut(depth)? =
                    Node { address_cells: 2, size_cells: 1, regions: 1, ..Node::default() };
            }
            2 => {
                let parent = *stack.get(depth.checked_sub(1)?)?;
                finish(&mut machine, &blob, &parent, stack.get(depth)?);
                depth -= 1;
            }
            3 => {
                let len = blob.word(at) as usize;
                let name = blob.string(strings + blob.word(at + 4) as usize);
                let value = at + 8;
                let node = stack.get_mut(depth)?;
                property(&mut machine, &blob, node, name, value, len);
                at = (value + len + 3) & !3;
            }
            4 => {}
            _ => return Some(machine),
        }
    }
}

fn property(
    machine: &mut Machine,
    blob: &Blob,
    node: &mut Node,
    name: &[u8],
    at: usize,
    len: usize,
) {
    let value = blob.bytes(at, len);
    match name {
        b"#address-cells" => node.address_cells = blob.word(at) as usize,
        b"#size-cells" => node.size_cells = blob.word(at) as usize,
        b"#redistributor-regions" => node.regions = blob.word(at) as usize,
        b"reg" => node.reg = Some((at, len)),
        b"ranges" => node.ranges = Some((at, len)),
        b"bootargs" => {
            machine.bootargs = core::str::from_utf8(value).unwrap_or("").trim_end_matches('\0');
        }
        b"method" => machine.hvc = contains(value, "hvc"),
        b"device_type" if contains(value, "memory") => node.kind = Kind::Memory,
        b"device_type" if contains(value, "cpu") => node.kind = Kind::Cpu,
        b"compatible" => {
            machine.xen |= contains(value, "xen,xen");
            for (word, kind) in [
                ("arm,gic-v3", Kind::Gic),
                ("arm,gic-v3-its", Kind::Its),
                ("arm,pl011", Kind::Uart),
                ("pci-host-ecam-generic", Kind::Pci),
            ] {
                if contains(value, word) {
                    node.kind = kind;
                }
            }
        }
        _ => {}
    }
}

/// The CPU's address and the size of a bridge's window for 32-bit memory.
fn pci_window(blob: &Blob, node: &Node, address_cells: usize) -> (u64, u64) {
    let Some((at, len)) = node.ranges else { return (0, 0) };
    // A PCI address has three cells, the first of them with the space: 2 is 32-bit memory.
    let stride = 4 * (3 + address_cells + node.size_cells);
    let mut ranges = (at..at + len).step_by(stride);
    ranges.find(|at| blob.word(*at) >> 24 & 3 == 2).map_or((0, 0), |at| {
        let size_at = at + 12 + 4 * address_cells;
        (blob.cells(at + 12, address_cells), blob.cells(size_at, node.size_cells))
    })
}

fn finish(machine: &mut Machine, blob: &Blob, parent: &Node, node: &Node) {
    let Some((at, len)) = node.reg else { return };
    let (address_cells, size_cells) = (parent.address_cells, parent.size_cells);
    let stride = 4 * (address_cells + size_cells);
    if stride == 0 {
        return;
    }
    let pair = |n: usize| {
        let start = at + n * stride;
        (blob.cells(start, address_cells), blob.cells(start + 4 * address_cells, size_cells))
    };
    let pairs = len / stride;
    match node.kind {
        Kind::Gic => {
            machine.gicd = pair(0);
            for n in 1..=node.regions.min(pairs.saturating_sub(1)) {
                if let Some(slot) = machine.gicr.get_mut(machine.gicrs) {
                    *slot = pair(n);
                    machine.gicrs += 1;
                }
            }
        }
        Kind::Its if machine.its.1 == 0 => machine.its = pair(0),
        Kind::Uart => machine.uart = pair(0),
        Kind::Pci => {
            machine.pci = pair(0);
            machine.pci_window = pci_window(blob, node, address_cells);
        }
        Kind::Memory => {
            for n in 0..pairs {
                if let Some(slot) = machine.memory.get_mut(machine.memories) {
                    *slot = pair(n);
                    machine.memories += 1;
                }
            }
        }
        Kind::Cpu => {
            if let Some(slot) = machine.cpus.get_mut(machine.ncpus) {
                *slot = pair(0).0;
                machine.ncpus += 1;
            }
        }
        Kind::Other | Kind::Its => {}
    }
}
