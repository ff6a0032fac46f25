# SPDX-License-Identifier: GPL-2.0-only
"""Every gate is shown something bad, and must say so; and something good, and must not."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from xenits import abi, gates, objects, promises, regen, sources, tools
from xenits.elf import Elf
from xenits.errors import StepError
from xenits.layout import REPO

GOOD = """\
    .text
    .globl xen_its_work
    .type xen_its_work, %function
xen_its_work:
    stp x29, x30, [sp, #-16]!
    bl xen_its_svc_now
    bl memcpy
    cbz x0, 1f
    add x1, x1, #0xd0
1:  ldp x29, x30, [sp], #16
    ret
    .size xen_its_work, . - xen_its_work
    .section .rodata
    .word 1
"""

SERVICES = {"xen_its_svc_now", "xen_its_svc_panic"}


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = self.folder / "log"

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def elf(self, assembly):
        source = self.write("a.s", assembly)
        path = self.folder / "a.o"
        argv = ["aarch64-linux-gnu-gcc", "-march=armv8.2-a", "-c", source, "-o", path]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        return Elf(path)

    def disassembly(self, assembly):
        path = self.elf(assembly).path
        argv = ["aarch64-linux-gnu-objdump", "-d", "-w", "--no-show-raw-insn", path]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def content(self, problems):
        self.assertEqual(list(problems), [])

    def complains(self, problems, *expressions):
        text = "\n".join(problems)
        for expression in expressions:
            self.assertRegex(text, expression)


class Objects(InFolder):
    """What is linked into Xen."""

    def test_good_object(self):
        elf = self.elf(GOOD)
        self.content(objects.exports(elf, {"xen_its_work"}, {"xen_its_work"}))
        self.content(objects.imports(elf, SERVICES))
        self.content(objects.panics(elf))
        self.content(objects.names(elf))
        self.content(objects.sections(elf))
        self.content(objects.vectors(self.disassembly(GOOD)))

    def test_exports(self):
        elf = self.elf(GOOD)
        extra = self.elf(GOOD + ".globl rust_begin\nrust_begin: ret\n")
        two = {"xen_its_work", "xen_its_dump"}
        self.complains(objects.exports(extra, {"xen_its_work"}, {"xen_its_work"}), "^exported, but not .*: rust_begin$")
        self.complains(objects.exports(elf, two, two), "^declared in .*, but not exported: xen_its_dump$")
        self.complains(objects.exports(elf, two, {"xen_its_work"}), "^in exports.txt, but not .*: xen_its_dump$")
        self.complains(objects.exports(elf, set(), {"xen_its_work"}), "but not in exports.txt: xen_its_work$")
        self.complains(objects.exports(self.elf(".data\n.word 0\nlocal:\n"), set(), set()), "declares no function")

    def test_imports(self):
        elf = self.elf(GOOD.replace("memcpy", "__aarch64_ldadd8_relax"))
        self.complains(objects.imports(elf, SERVICES), "needs __aarch64_ldadd8_relax, .*; used by xen_its_work$")
        self.complains(
            objects.imports(self.elf(GOOD), {"xen_its_svc_other"}), "uses no service", "needs xen_its_svc_now"
        )

    def test_panics(self):
        for name in (
            "xen_its_svc_panic",
            "_ZN4core9panicking9panic_fmt17h0123456789abcdefE",
            "_ZN4core6option13unwrap_failed17h0123456789abcdefE",
            "_ZN4core5slice5index16slice_index_fail17h0123456789abcdefE",
            "_RNvNtCs0_4core9panicking18panic_bounds_check",
        ):
            what = "the panic handler" if name == objects.PANIC_SERVICE else name
            called = GOOD.replace("bl memcpy", f"bl {name}")
            self.complains(objects.panics(self.elf(called)), f"^{what} is linked in; used by xen_its_work$")
            # Local, and called without a relocation.
            local = self.elf(f"{called}\n.text\n.type {name}, %function\n{name}: ret\n")
            self.complains(objects.panics(local), f"^{what} is linked in; used by nobody")
            # Local, and called as an offset in its section.
            far = f'{called}\n.section .text.f, "ax"\n.type {name}, %function\n{name}: ret\n.size {name}, 4\n'
            far = self.elf(far.replace(f"bl {name}", "bl .text.f"))
            self.complains(objects.panics(far), f"^{what} is linked in; used by xen_its_work$")

    def test_vectors(self):
        for instruction in (
            "movi v0.2d, #0",
            "ldr q31, [x0]",
            "stp d8, d9, [sp, #-16]!",
            "fmov s3, w1",
            "ldr h2, [x0]",
            "ldr b2, [x0]",
            "ld1 {v4.16b}, [x0]",
            "mrs x0, fpcr",
        ):
            self.complains(
                objects.vectors(self.disassembly(GOOD.replace("bl memcpy", instruction))), "xen_its_work has 1"
            )
        for instruction in (
            "b.eq 1f",
            "cbz x8, . + 0xd0",
            "add x2, x2, #0xb8",
            "mrs x0, s3_3_c13_c0_2",
            "msr daifset, #2",
            "dmb ishst",
            "ldr w2, =0xd0d1d2d3",
            "prfm pldl1keep, [x0]",
            "bl d8",
        ):
            self.content(objects.vectors(self.disassembly(GOOD.replace("bl memcpy", instruction))))
        self.complains(objects.vectors("a.o: file format elf64-littleaarch64\n"), "no instruction at all")

    def test_names(self):
        self.content(objects.names(self.elf(GOOD + f'.section .rodata.{"x" * 200}, "a"\n.word 0\n')))
        self.content(objects.names(self.elf(GOOD + "x" * 126 + ": .word 0\n")))
        self.complains(
            objects.names(self.elf(GOOD + "x" * 127 + ": .word 0\n")), "has 127 characters, Xen takes 126: xx"
        )

    def test_sections(self):
        orphan = GOOD.replace(".text", '.section .text.xen_its_work, "ax"')
        self.complains(
            objects.sections(self.elf(orphan)), "section .text.xen_its_work .28 bytes. is none", "no code in .text"
        )
        for flags, name, problem in (
            ("awx", ".data.code", "none that xen.lds.S collects"),
            ("a", ".eh_frame", "none that xen.lds.S collects"),
            ("aw", ".got", "none that xen.lds.S collects"),
            ("", ".llvmbc", "is not expected"),
        ):
            self.complains(
                objects.sections(self.elf(f'{GOOD}\n.section {name}, "{flags}"\n.word 0\n')), f"{name}.*{problem}"
            )

    def test_sections_that_can_be_written_and_executed(self):
        for change in (("--set-section-flags", ".text=alloc,code"), ("--set-section-flags", ".rodata=alloc,data")):
            path = self.elf(GOOD).path
            subprocess.run(["aarch64-linux-gnu-objcopy", *change, path], check=True)
            self.complains(objects.sections(Elf(path)), "can be written")
        path = self.elf(GOOD + "\n.data\n.word 0\n").path
        subprocess.run(["aarch64-linux-gnu-objcopy", "--set-section-flags", ".data=alloc,code", path], check=True)
        self.complains(objects.sections(Elf(path)), "section .data can be executed")

    def test_no_object(self):
        with self.assertRaisesRegex(StepError, "cannot read"):
            Elf(self.folder / "none")
        with self.assertRaisesRegex(StepError, "no 64-bit ELF file"):
            Elf(self.write("text", "hello"))
        path = self.elf(GOOD).path
        subprocess.run(["aarch64-linux-gnu-objcopy", "--strip-all", "--remove-relocations=.text", path], check=True)
        with self.assertRaisesRegex(StepError, "stripped"):
            Elf(path)

    def test_list(self):
        path = self.write("list", "# SPDX\na\n\n b # why\n")
        self.assertEqual(objects.read_list(path), {"a", "b"})


HEADER = """\
#include <xen/types.h>
struct vcpu;
struct xen_its_domain;
/* xen_its_old(void); */
int32_t xen_its_init(struct xen_its_domain *its, const struct vcpu *v,
                     uint64_t *value);
bool xen_its_work(const struct xen_its_domain *its);
void xen_its_dump(void);
"""

SERVICES_HEADER = """\
#include <xen/types.h>
struct xen_its_lock { uint64_t storage[4]; };
#define XEN_ITS_SLOTS 16
#define xen_its_svc_macro(x) xen_its_svc_lock(x);
void xen_its_svc_lock(struct xen_its_lock *lock);
void xen_its_svc_panic(uint32_t line) __attribute__((__noreturn__));
"""

RUST = """\
/// `#[unsafe(no_mangle)] pub extern "C" fn xen_its_comment() {`
type Handle = Option<Owned<XenItsDomain>>;
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_init(
    its: Handle,
    mut v: *const Vcpu,
    value: &mut u64,
) -> i32 {
    0
}
#[unsafe(no_mangle)]
pub extern "C" fn xen_its_work(its: &XenItsDomain) -> bool { true }
#[unsafe(no_mangle)]
#[cold]
pub extern "C" fn xen_its_dump() {}
"""

BINDINGS = """\
pub const XEN_ITS_SLOTS: u32 = 16;
const _: () = {
    ["Size of xen_its_lock"][::core::mem::size_of::<xen_its_lock>() - 32usize];
    ["Alignment of xen_its_lock"][::core::mem::align_of::<xen_its_lock>() - 8usize];
    ["Offset of field: xen_its_lock::storage"]
        [::core::mem::offset_of!(xen_its_lock, storage) - 0usize];
};
unsafe extern "C" {
    pub fn xen_its_svc_lock(lock: *mut xen_its_lock);
    pub fn xen_its_svc_panic(line: u32) -> !;
}
"""


class Abi(InFolder):
    """Headers, and the two sides of them."""

    def setUp(self):
        super().setUp()
        known = dict(abi.C_TYPES, Vcpu="struct vcpu")
        patch = unittest.mock.patch.object(abi, "C_TYPES", known)
        patch.start()
        self.addCleanup(patch.stop)

    def problems(self, rust=RUST, bindings=BINDINGS, header=HEADER, services=SERVICES_HEADER):
        self.write("include/xen_its.h", header)
        self.write("include/xen_services.h", services)
        return gates.abi_problems(rust, bindings, self.folder / "include", self.folder / "c", self.log)

    def test_good(self):
        self.content(self.problems())

    def test_functions_in_headers(self):
        self.assertEqual(abi.functions(HEADER), {"xen_its_init", "xen_its_work", "xen_its_dump"})
        self.assertEqual(abi.functions(SERVICES_HEADER), {"xen_its_svc_lock", "xen_its_svc_panic"})

    def test_prototypes(self):
        for old, new in (
            ("int32_t xen_its_init", "int64_t xen_its_init"),
            ("uint64_t *value", "uint32_t *value"),
            ("uint64_t *value", "uint64_t value"),
            ("const struct vcpu *v", "struct vcpu *v"),
            ("struct xen_its_domain *its, const", "const struct xen_its_domain *its, const"),
            ("bool xen_its_work", "uint8_t xen_its_work"),
            ("xen_its_dump(void)", "xen_its_dump(uint32_t cpu)"),
        ):
            self.assertIn(old, HEADER)
            self.complains(self.problems(header=HEADER.replace(old, new)), "incompatible pointer type")

    def test_functions_on_one_side(self):
        self.complains(self.problems(header=HEADER + "void xen_its_new(void);\n"), "^xen_its_new is in only one")
        self.complains(
            self.problems(rust=RUST.replace("xen_its_dump", "xen_its_show")), "xen_its_dump .*\n.*xen_its_show"
        )
        self.complains(
            self.problems(services=SERVICES_HEADER + "void xen_its_svc_b(void);\n"), "^xen_its_svc_b is in only"
        )
        self.complains(self.problems(bindings=BINDINGS.replace("svc_lock(", "svc_key(")), "^xen_its_svc_key is in only")

    def test_numbers(self):
        for old, new, what in (
            ("32usize", "24usize", "size of xen_its_lock"),
            ("8usize", "16usize", "alignment of xen_its_lock"),
            (" 0usize", " 8usize", "offset of xen_its_lock.storage"),
            ("= 16", "= 17", "value of XEN_ITS_SLOTS"),
        ):
            self.assertIn(old, BINDINGS)
            self.complains(self.problems(bindings=BINDINGS.replace(old, new)), f"static assertion failed: .{what}")

    def test_unknown_type(self):
        self.complains(self.problems(rust=RUST.replace("&mut u64", "&mut Width")), "Rust type 'Width'")

    def test_nothing_read(self):
        self.complains(self.problems(rust="", bindings="", header=""), "show no function, no service or no number")

    def test_headers_under_xens_warnings(self):
        def problems(text):
            self.write("include/xen_its.h", text)
            return gates.compile_c('#include "xen_its.h"\n' * 2, self.folder / "include", self.folder / "c", self.log)

        guard = "#ifndef G\n#define G\n{}\nextern int x;\n#endif\n"
        self.content(problems(guard.format(HEADER)))
        self.complains(problems(guard.format(HEADER + "void xen_its_dump(void);")), "redundant redeclaration")
        self.complains(problems(guard.format("void xen_its_dump();")), "strict-prototypes|isn.t a prototype")
        self.complains(problems(guard.format("void f(struct unknown *x);")), "declared inside parameter list")
        self.complains(problems(HEADER), "redundant redeclaration")
        self.complains(problems(guard.format("#include <xen/types.h>\nvoid f(uint32_t x)")), "error: expected")


class Regen(InFolder):
    """Generated files."""

    def test_differences(self):
        path = Path("include/xen_its.h")
        self.write("include/xen_its.h", "one\ntwo\n")
        self.content(regen.differences({path: "one\ntwo\n"}, self.folder))
        self.complains(regen.differences({path: "one\n2\n"}, self.folder), r"(?m)^-two$\n^\+2$")
        self.complains(regen.differences({Path("missing"): "text\n"}, self.folder), r"(?m)^\+text$")

    def test_tidy(self):
        raw = "/**\n * One `a * b`.\n */\nint f(struct s * * out, struct t * a,\n  uint32_t * b);\n#endif /* X * y */\n"
        tidy = "/* One `a * b`. */\nint f(struct s **out, struct t *a,\n  uint32_t *b);\n#endif /* X * y */\n"
        self.assertEqual(regen.tidy(raw), tidy)
        self.assertEqual(regen.tidy("/**\n * One * a\n * two\n */\n"), "/*\n * One * a\n * two\n */\n")

    def test_exports(self):
        self.write("e", regen.exports(HEADER))
        self.assertEqual(objects.read_list(self.folder / "e"), {"xen_its_init", "xen_its_work", "xen_its_dump"})

    def test_a_wrong_version_is_installed_anew(self):
        for version, runs in (("1.0", 0), ("0.9", 1)):
            tool = self.write("xen-its/tools/bin/gen", f"#!/bin/sh\necho gen {version}\n")
            tool.chmod(0o755)
            silent = contextlib.redirect_stderr(io.StringIO())
            cache = unittest.mock.patch.dict(os.environ, XDG_CACHE_HOME=str(self.folder))
            with unittest.mock.patch.object(tools, "run") as run, silent, cache:
                tools.cargo_tool("gen-cli", "gen", "1.0", self.log)
            self.assertEqual(run.call_count, runs)

    def test_pip_is_installed_if_there_is_none(self):
        python = self.write("python", '#!/bin/sh\necho "$@" >> "$0.args"; [ "$3" != --version ]\n')
        python.chmod(0o755)
        with (
            unittest.mock.patch.object(tools.sys, "executable", str(python)),
            unittest.mock.patch.object(tools.packages, "Apt") as apt,
            unittest.mock.patch.dict(os.environ, XDG_CACHE_HOME=str(self.folder)),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            regen._libclang(self.folder / "py", self.log)
        apt.return_value.install.assert_called_once_with(["python3-pip"])
        self.assertRegex((self.folder / "python.args").read_text(), "(?m)^-m pip install .* libclang==")

    def test_downloads_are_tried_twice(self):
        with unittest.mock.patch.object(tools, "run", side_effect=[StepError("no network"), None]) as run:
            tools.twice(["true"], self.folder, "what", self.log)
        self.assertEqual(run.call_count, 2)
        with self.assertRaisesRegex(StepError, "cannot install x .tried twice"):
            tools.twice(["false"], self.folder, "cannot install x", self.log)


def package(name, licence, dependencies=(), kind="lib", manifest="/nowhere/Cargo.toml", roots=()):
    targets = [{"kind": [kind], "src_path": str(r)} for r in roots] or [{"kind": [kind], "src_path": "/nowhere/lib.rs"}]
    head = {"id": name, "name": name, "version": "1.0.0", "license": licence, "targets": targets}
    deps = [{"pkg": d, "dep_kinds": [{"kind": k}]} for d, k in dependencies]
    return dict(head, manifest_path=str(manifest)), {"id": name, "deps": deps}


def metadata(*packages):
    return {"packages": [p for p, _ in packages], "resolve": {"nodes": [n for _, n in packages]}}


class Sources(InFolder):
    """Licences, and unsafe code."""

    def test_spdx(self):
        good = self.write("a.rs", "// SPDX-License-Identifier: GPL-2.0-only\n")
        self.write("README.md", "text\n")
        (self.folder / "picture.png").write_bytes(b"\x89PNG\0")
        self.content(sources.spdx(self.folder, ["a.rs", "README.md", "picture.png", "gone.c"]))
        self.write("b.c", "int x;\n")
        self.write("list.txt", "x\n")
        self.complains(sources.spdx(self.folder, ["a.rs", "b.c", "list.txt"]), r"\Ab.c does not say", "\nlist.txt does")
        good.write_text("// SPDX-License-Identifier: GPL-2.0-or-later\n")
        self.complains(sources.spdx(self.folder, ["a.rs"]), "a.rs does not say")
        good.write_text("\n" * 700 + "// SPDX-License-Identifier: GPL-2.0-only\n")
        self.complains(sources.spdx(self.folder, ["a.rs"]), "a.rs does not say")
        self.complains(sources.spdx(self.folder, []), "no source files")

    def test_licence_expressions(self):
        for good in (
            "MIT", "GPL-2.0-only", "MIT OR Apache-2.0", "MIT/Apache-2.0", "Apache-2.0 OR (MIT AND Zlib)",
            "BSD-2-Clause OR Apache-2.0 OR MIT", "Apache-2.0 WITH LLVM-exception OR MIT",
        ):  # fmt: skip
            self.assertTrue(sources.compatible(good), good)
        for bad in (
            "", "Apache-2.0", "MPL-2.0", "GPL-3.0-only", "MIT AND Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0",
            "MIT OR", "(MIT", "MIT)", "MIT Apache-2.0", "GPL-2.0-only WITH x", "AND", "OR MIT",
        ):  # fmt: skip
            self.assertFalse(sources.compatible(bad), bad)

    def test_licences(self):
        ours = package("xen-its", "GPL-2.0-only", [("core", None), ("dev", "dev"), ("tool", "build")])
        core = package("core", "GPL-2.0-only", [("macro", None), ("leaf", None)])
        macro = package("macro", "MIT", [("syn", None)], kind="proc-macro")
        rest = [package(name, "Apache-2.0") for name in ("dev", "tool", "syn", "unused")]
        leaf = package("leaf", "MIT OR Apache-2.0")
        self.content(sources.licences(metadata(ours, core, macro, leaf, *rest), "xen-its"))
        for licence, said in (("Apache-2.0", "Apache-2.0"), (None, "no licence")):
            bad = metadata(ours, core, macro, package("leaf", licence), *rest)
            self.complains(sources.licences(bad, "xen-its"), f"^leaf 1.0.0 is linked into Xen and has: {said}$")
        bad = metadata(ours, core, package("macro", "MPL-2.0", kind="proc-macro"), leaf, *rest)
        self.complains(sources.licences(bad, "xen-its"), "^macro 1.0.0")
        self.complains(sources.licences(metadata(core, macro, leaf, *rest), "xen-its"), "no package xen-its")

    def crate(self, name, *lines):
        root = self.write(f"{name}/src/lib.rs", "".join(f"{line}\n" for line in lines))
        return package(name, "MIT", manifest=self.folder / name / "Cargo.toml", roots=[root])

    def test_unsafe(self):
        forbid = "#![forbid(unsafe_code)]"
        sys = self.crate("xen-sys", "unsafe fn f() {}")
        entry = (
            '#![expect(unsafe_code, reason = "r")]',
            "#[unsafe(no_mangle)]",
            "// unsafe {",
            'const S: &str = "unsafe {";',
        )

        def check(its, core):
            crates = metadata(sys, self.crate("xen-its", *its), self.crate("core", *core))
            return list(sources.unsafe_code(crates, self.folder))

        good = (forbid, "/* unsafe { */", "fn f<'a>(c: &'a char) -> bool { *c == '\"' } // unsafe")
        self.content(check(entry, good))
        self.complains(check(entry, ["fn f() {}"]), "^core/src/lib.rs has no #..forbid")
        self.complains(check(entry, ["// " + forbid]), "^core/src/lib.rs has no #..forbid")
        self.complains(check(entry, ["#![deny(unsafe_code)]"]), "^core/src/lib.rs has no #..forbid")
        for line in (
            "unsafe { f() }",
            "unsafe fn f() {}",
            "unsafe impl Send for X {}",
            '#[unsafe(link_section = "x")]',
        ):
            self.complains(check([*entry, line], good), "^xen-its/src/lib.rs:5: unsafe code belongs in xen-sys")
        self.write("core/src/deep/more.rs", "\n\nunsafe impl Sync for X {}\n")
        self.complains(check(entry, good), "^core/src/deep/more.rs:3: unsafe code belongs")
        self.complains(
            sources.unsafe_code(metadata(self.crate("core", forbid)), self.folder), "there is no crate xen-sys"
        )


class Promises(InFolder):
    """The table of promises names tests."""

    TABLE = """\
Some `text`, and a table that names no tests:

| a | b |
|---|---|
| 1 | `2` |

| promise | shown by | figure |
|---|---|---|
| bounded | `a_test`, `boot/rust/nvme` | `32` |
| by design | cannot exist: there is no `such` thing | |
"""

    def test_good(self):
        rows = list(promises.rows(self.TABLE))
        self.assertEqual([first for first, _ in rows], ["bounded", "by design"])
        known = {"a_test", "boot/rust/nvme", "such"}
        self.content(promises.problems(self.TABLE, known, {"a_test"}))

    def test_a_name_that_does_not_exist(self):
        known = {"boot/rust/nvme", "such"}
        self.complains(promises.problems(self.TABLE, known, set()), "'bounded' names the test a_test")
        self.complains(promises.problems(self.TABLE, set(), set()), "nvme", "such")

    def test_a_row_without_a_name(self):
        text = self.TABLE.replace("`a_test`, `boot/rust/nvme`", "a_test")
        self.complains(promises.problems(text, {"such"}, set()), "'bounded' names no test")

    def test_a_test_that_is_left_out(self):
        known = {"a_test", "boot/rust/nvme", "such", "xsa_1"}
        self.complains(promises.problems(self.TABLE, known, {"xsa_1"}), "no row names the test xsa_1")

    def test_no_table(self):
        self.complains(promises.problems("| a |\n|---|\n| `b` |\n", set(), set()), "no table")

    def test_names_are_found(self):
        self.write("a/b.rs", "#[test]\nfn one() {}\n#[test]\n#[cfg(x)]\nfn two() {}\nfn three() {}\n")
        self.write("fuzz/fuzz_targets/mmio.rs", "fn none() {}\n")
        self.write("cases/c.rs", '    ("queue-wrap", wrap),\n    let x = ("no", 1);\n    "oor" => [1];\n')
        self.write("t/test_x.py", "    def test_four(self):\n")
        names = ["a/b.rs", "fuzz/fuzz_targets/mmio.rs", "t/test_x.py", "README.md"]
        self.assertEqual(promises.rust_tests(self.folder, names), {"one", "two", "fuzz/mmio"})
        self.assertEqual(promises.guest_cases(self.folder / "cases"), {"queue-wrap", "oor"})
        self.assertEqual(promises.python_tests(self.folder, names), {"test_four"})


class WithoutRust(InFolder):
    """A Xen with the C ITS."""

    def test_config(self):
        self.content(gates.rust_in_config("CONFIG_HAS_ITS=y\n# CONFIG_ITS_RUST is not set\n"))
        self.content(gates.rust_in_config("CONFIG_HAS_ITS=y\n"))
        self.complains(gates.rust_in_config("CONFIG_HAS_ITS=y\nCONFIG_ITS_RUST=y\n"), "CONFIG_ITS_RUST is on")
        self.complains(gates.rust_in_config("# CONFIG_HAS_ITS is not set\n"), "says nothing of the default")

    def test_symbols(self):
        self.content(gates.rust_in_symbols(self.elf(".globl start\nstart: ret\n")))
        for name in ("xen_its_work", "_ZN8its_core4host3new17h0123456789abcdefE", "_RNvCs0_8its_core3new"):
            self.complains(
                gates.rust_in_symbols(self.elf(f"start: ret\n{name}: ret\n")), f"1 symbols of Rust's: {name}"
            )

    def test_tree(self):
        self.write("xen/arch/arm/its-rust.c", "")
        self.write("xen/arch/arm/its-rs.mk", "")
        self.write("xen/arch/arm/its.o", "")
        self.content(gates.rust_in_tree(self.folder))
        for name in ("arch/arm/its-rs.o", "its-rs.cargo/.rustc_info.json", "x/libxen_its.a", "x/liba.rlib"):
            path = self.write(name, "")
            self.complains(gates.rust_in_tree(self.folder), f"^the build made {name}$")
            path.unlink()


class Prelink(InFolder):
    """The object that the quick gates look at is the real one."""

    def test_exports_and_sections_come_from_the_repository(self):
        # Nothing is built: the library is a small archive of our own.
        target = self.folder / "target"
        library = target / "aarch64-unknown-none-softfloat/release/libxen_its.a"
        library.parent.mkdir(parents=True)
        names = sorted(objects.read_list(REPO / regen.EXPORTS))
        text = "".join(f'.section .text.{n}, "ax"\n.globl {n}\n{n}: ret\n' for n in [*names, "left_out"])
        self.elf(text)
        subprocess.run(["aarch64-linux-gnu-ar", "rc", library, self.folder / "a.o"], check=True)
        with (
            unittest.mock.patch.dict(os.environ, CARGO_TARGET_DIR=str(target)),
            unittest.mock.patch.object(objects, "run", side_effect=lambda argv, *a, **k: self._run(argv)),
            unittest.mock.patch.object(objects.rust, "ensure_targets"),
        ):
            path = objects.prelink(self.folder, self.log)
        elf = Elf(path)
        self.assertEqual(elf.exports(), set(names))
        self.content(objects.sections(elf))
        self.assertNotIn("left_out", {s.name for s in elf.symbols})

    def _run(self, argv):
        if argv[0] != "cargo":
            subprocess.run([str(a) for a in argv], check=True)


class Registry(unittest.TestCase):
    def test_names(self):
        names = [c.name for c in gates._GATES]
        self.assertEqual(len(set(names)), len(names))
        self.assertTrue(all(n.startswith("gate/") for n in names))
        self.assertIn("gate/object/panics", names)

    def test_problems_fail_the_case(self):
        @gates.gate("planted", "for this test")
        def planted(gate):
            return ["bad"]

        case = gates._GATES.pop()
        self.assertEqual(case.run(None)[0].problems, ("bad",))
        self.assertTrue(case.run(None)[0].failed)


if __name__ == "__main__":
    unittest.main()
