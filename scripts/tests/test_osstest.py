# SPDX-License-Identifier: GPL-2.0-only
"""The runner of integration jobs, with steps that only pretend to do something."""

import contextlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

from xenits import boots, qemu
from xenits.console import Console
from xenits.errors import StepError
from xenits.osstest import (
    cli,
    dropin,
    flights,
    history,
    jobs,
    page,
    plots,
    processes,
    publish,
    recipes,
    schedule,
    statuses,
    text,
)
from xenits.osstest.execute import Runner
from xenits.osstest.home import Home
from xenits.osstest.jobs import Spec
from xenits.osstest.recipes import Step

SCRIPTS = Path(__file__).resolve().parents[1]


class FakeFlights(unittest.TestCase):
    """A home, and programs that the test writes."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.home = Home(self.folder / "home")
        self.database = self.home.database
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        self.recipes = {}

    def program(self, name, body):
        path = self.programs / name
        path.write_text("#!/usr/bin/env bash\n" + textwrap.dedent(body))
        path.chmod(0o755)

    def python(self, name, body):
        path = self.programs / name
        head = f"#!{sys.executable} -B\nimport sys\nsys.path.insert(0, {str(SCRIPTS)!r})\n"
        path.write_text(head + "from xenits.osstest import statuses, step\n" + textwrap.dedent(body))
        path.chmod(0o755)

    def flight(self, *specs, branch="fake"):
        return schedule.create(self.database, branch, specs)

    def runner(self):
        return Runner(self.home, recipes=self.recipes, programs=self.programs)

    def run_job(self, *steps, runvars=None):
        """One job of these steps; gives its status, and those of its steps."""
        self.recipes["r"] = steps
        flight = self.flight(Spec("job", "r", runvars or {}))
        status = self.runner().run(flight, "job")
        self.assertEqual(self.database.job(flight, "job").status, status)
        return status, {s.testid: s.status for s in self.database.steps(flight)}

    def log(self, number, program, flight=1, job="job"):
        return self.home.step_log(flight, job, number, program).read_text()


class Statuses(FakeFlights):
    def ending(self, code, iffail=statuses.FAIL):
        self.program("ts-it", f"echo said; exit {code}")
        return self.run_job(Step("ts-it", "it", iffail=iffail))[0]

    def test_what_a_step_ends_with_is_its_status(self):
        self.assertEqual(self.ending(0), "pass")
        self.assertEqual(self.ending(1), "fail")
        self.assertEqual(self.ending(1, iffail="broken"), "broken")
        self.assertEqual(self.ending(3), "blocked")
        self.assertEqual(self.ending(4), "starved")
        self.assertEqual(self.ending(5), "broken")
        self.assertEqual(self.ending(77), "broken", "nobody knows what that means")
        self.assertEqual(self.log(1, "ts-it"), "said\n")

    def test_a_step_that_is_killed_or_missing_is_broken(self):
        self.program("ts-it", "kill -9 $$")
        self.assertEqual(self.run_job(Step("ts-it", "it"))[0], "broken")
        self.assertIn("killed by signal 9", self.log(1, "ts-it"))
        self.assertEqual(self.run_job(Step("ts-absent", "absent"))[0], "broken")
        self.assertIn("cannot be run", self.log(1, "ts-absent", flight=2))

    def test_a_step_that_hangs_is_stopped_with_all_that_it_started(self):
        pids = self.folder / "pids"
        self.program("ts-hang", f"sleep 600 & echo $! > {pids}; trap '' TERM; while :; do sleep 1; done")
        began = time.monotonic()
        with mock.patch("xenits.osstest.execute.PATIENCE_S", 0.3):
            status, _ = self.run_job(Step("ts-hang", "hang", limit=0.5))
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(status, "fail")
        self.assertIn("still running after 0 s: stopped", self.log(1, "ts-hang"))
        self.assertGone(int(pids.read_text()))

    def test_what_a_good_step_leaves_behind_is_stopped(self):
        pids = self.folder / "pids"
        self.program("ts-leave", f"sleep 600 & echo $! > {pids}")
        self.assertEqual(self.run_job(Step("ts-leave", "leave"))[0], "pass")
        self.assertGone(int(pids.read_text()))

    def assertGone(self, pid):
        for _ in range(100):
            with contextlib.suppress(FileNotFoundError):
                # Nobody may have waited for it yet.
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.05)
                    continue
            return
        self.fail(f"process {pid} still runs")

    def test_the_first_failure_names_the_job_and_ends_it(self):
        self.program("ts-good", "exit 0")
        self.program("ts-bad", "exit 1")
        self.program("ts-worse", "exit 5")
        status, seen = self.run_job(
            Step("ts-good", "a"),
            Step("ts-bad", "b", goes_on=True),
            Step("ts-worse", "c"),
            Step("ts-good", "d"),
            Step("ts-good", "e", always=True),
        )
        self.assertEqual(status, "fail")
        self.assertEqual(seen, {"a": "pass", "b": "fail", "c": "broken", "e": "pass"})

    def test_programs_of_a_job_are_told_from_those_of_another(self):
        for name in ("job", "job-gic4"):
            (self.folder / name).mkdir()
        argv = [sys.executable, "-c", "import time; time.sleep(600)", str(self.folder / "job-gic4/serial.log")]
        other = subprocess.Popen(argv)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        for _ in range(100):
            # The kernel has no command line of it before the program has begun.
            if Path(f"/proc/{other.pid}/cmdline").read_bytes():
                break
            time.sleep(0.1)
        self.assertEqual(processes.at(self.folder / "job"), [])
        self.assertEqual([p.pid for p in processes.at(self.folder / "job-gic4")], [other.pid])

    def test_every_recipe_names_programs_that_are_there(self):
        for name, steps in recipes.RECIPES.items():
            for one in steps:
                with self.subTest(f"{name} {one.program}"):
                    self.assertTrue(os.access(SCRIPTS.parent / "osstest" / one.program, os.X_OK))


class Programs(FakeFlights):
    """`step.main`, in a program of its own."""

    def status(self, body, **runvars):
        self.python("ts-it", body)
        return self.run_job(Step("ts-it", "it"), runvars=runvars)[0]

    def test_runvars_come_in_and_go_out(self):
        body = "step.main(lambda job: job.store('out', job.runvars['in'] * 2))"
        self.assertEqual(self.status(body, **{"in": "ab"}), "pass")
        self.assertEqual(self.database.runvars(1, "job"), {"in": "ab", "out": "abab"})

    def test_a_verdict_ends_it(self):
        for word in ("fail", "broken", "blocked", "starved"):
            body = f"""
            def run(job):
                raise statuses.Verdict({word!r}, "because of this")
            step.main(run)
            """
            self.assertEqual(self.status(body), word)
            self.assertIn(f"{word}: because of this", self.log(1, "ts-it", self.database.flights()[-1].flight))

    def test_a_full_disk_is_not_the_fault_of_what_is_tested(self):
        writes = "step.main(lambda job: open('/dev/full', 'w').write('x' * 100000))"
        self.assertEqual(self.status(writes), "broken")
        self.assertIn("the disk is full", self.log(1, "ts-it"))
        compiles = """
        from xenits.shell import run
        step.main(lambda job: run(["sh", "-c", "head -c 9 /dev/zero >/dev/full"], job.logs / "make.log"))
        """
        self.assertEqual(self.status(compiles), "broken")

    def test_what_a_builder_cannot_do_is_a_failure_and_the_rest_is_ours(self):
        head = """
        from xenits.errors import StepError
        def run(job):
            raise {error}
        step.main(run{more})
        """
        builds = ", on_error=statuses.FAIL"
        for error, more, status in (
            ("StepError('no')", "", "broken"),
            ("StepError('no')", builds, "fail"),
            ("KeyError('no')", builds, "broken"),
            ("StepError('no', lines=['x: No space left on device'])", builds, "broken"),
        ):
            with self.subTest(error + more):
                self.assertEqual(self.status(head.format(error=error, more=more)), status)

    def test_without_a_job_it_says_what_it_wants(self):
        for name in recipes.RECIPES["test-its-dom0"]:
            with self.subTest(name.program):
                done = subprocess.run(
                    [SCRIPTS.parent / "osstest" / name.program],
                    env={"PATH": os.environ["PATH"], "OSSTEST_HOME": str(self.home.folder)},
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                self.assertEqual(done.returncode, 2)
                self.assertIn("OSSTEST_FLIGHT", done.stderr)

    def test_a_build_that_is_not_there_keeps_its_tests_from_running(self):
        for built, wanted in (("pass", 0), ("fail", 3), ("starved", 4), ("broken", 3)):
            with self.subTest(built):
                flight = self.flight(Spec("b", "r", {}), Spec("t", "r", {"xbuildjob": "b"}))
                self.database.set_job(flight, "b", built)
                done = subprocess.run(
                    [SCRIPTS.parent / "osstest/ts-its-build-check"],
                    env={
                        "PATH": os.environ["PATH"], "OSSTEST_HOME": str(self.home.folder),
                        "OSSTEST_FLIGHT": str(flight), "OSSTEST_JOB": "t",
                    },
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                self.assertEqual(done.returncode, wanted, done.stdout + done.stderr)

    def test_artefacts_are_handed_over(self):
        self.python("ts-make", """
            def run(job):
                (job.logs / "it").write_text("made")
                job.stash(job.logs / "it", "path_it", "kept")
            step.main(run)
        """)  # fmt: skip
        self.python("ts-take", "step.main(lambda job: print(job.artefact('xbuildjob', 'path_it').read_text()))")
        self.recipes |= {"make": [Step("ts-make", "make")], "take": [Step("ts-take", "take")]}
        flight = self.flight(Spec("b", "make", {}), Spec("t", "take", {"xbuildjob": "b"}))
        other = self.flight(Spec("t", "take", {"xbuildjob": f"{flight}.b"}), Spec("u", "take", {"xbuildjob": "gone"}))
        runner = self.runner()
        for number, job, status in (
            (flight, "b", "pass"),
            (flight, "t", "pass"),
            (other, "t", "pass"),
            (other, "u", "broken"),
        ):
            self.assertEqual(runner.run(number, job), status)
        self.assertEqual(self.log(1, "ts-take", other, "t"), "made\npass\n")


class Scheduling(FakeFlights):
    def setUp(self):
        super().setUp()
        self.seen = []

    def listen(self, job, status, _remark):
        if job:
            self.seen.append((job, status))

    def fly(self, flight, cores=2):
        return schedule.Flight(self.runner(), flight, self.listen, cores).run()

    def test_a_job_whose_build_failed_is_blocked(self):
        self.programs = SCRIPTS.parent / "osstest"
        self.recipes |= {"build": [Step("ts-none", "build")], "test": [recipes.CHECK]}
        flight = self.flight(Spec("t", "test", {"xenbuildjob": "b"}), Spec("b", "build", {}))
        self.assertEqual(self.fly(flight), {"t": "blocked", "b": "broken"})
        self.assertEqual(self.seen[0], ("b", "running"), "it comes first, wherever it is in the list")

    def test_jobs_run_side_by_side_but_no_more_than_there_are_cpus(self):
        self.program("ts-it", "sleep 0.5")
        self.recipes["r"] = [Step("ts-it", "it")]
        flight = self.flight(*(Spec(f"j{n}", "r", {"smp": "1"}) for n in range(4)), Spec("large", "r", {"smp": "64"}))
        self.assertEqual(set(self.fly(flight).values()), {"pass"})
        most, now = 0, set()
        for job, status in self.seen:
            (now.add if status == "running" else now.discard)(job)
            most = max(most, len(now))
            self.assertFalse("large" in now and len(now) > 1)
        self.assertEqual(most, 2)

    def test_a_flight_that_is_stopped_can_be_resumed(self):
        self.program("ts-quick", f"echo x >> {self.folder}/ran")
        self.program("ts-slow", f"[ -e {self.folder}/again ] || sleep 600")
        self.recipes |= {"quick": [Step("ts-quick", "q")], "slow": [Step("ts-slow", "s")]}
        flight = self.flight(*(Spec(n, n.rstrip("2"), {}) for n in ("quick", "slow", "slow2")))
        running = schedule.Flight(self.runner(), flight, self.listen, 1)

        def stop(job, status, _remark):
            if job == "slow" and status == "running":
                threading.Timer(0.5, running.runner.stop.set).start()
            if job == "slow" and status != "running":
                raise KeyboardInterrupt

        running.listen = stop
        with self.assertRaises(KeyboardInterrupt):
            running.run()
        found = {job.job: job.status for job in self.database.jobs(flight)}
        self.assertEqual(found, {"quick": "pass", "slow": "aborted", "slow2": "aborted"})
        self.assertIn("unfinished", text.render(self.home, flight).splitlines()[0])
        (self.folder / "again").touch()
        self.assertEqual(set(self.fly(flight).values()), {"pass"})
        self.assertEqual((self.folder / "ran").read_text(), "x\n", "what had passed does not run again")
        self.assertEqual([s.status for s in self.database.steps(flight, "slow")], ["pass"])

    def test_what_was_dropped_is_built_again_before_a_flight_goes_on(self):
        self.program("ts-make", f"mkdir -p $OSSTEST_HOME/logs/1/$OSSTEST_JOB/build; echo x >> {self.folder}/made")
        self.program("ts-it", "true")
        self.recipes |= {"make": [Step("ts-make", "make")], "take": [Step("ts-it", "take")]}
        specs = [Spec(n, "make", {}) for n in ("a", "b", "c")]
        specs += [Spec("t", "take", {"xbuildjob": "a"}), Spec("u", "take", {"xbuildjob": "b"})]
        flight = self.flight(*specs)
        self.assertEqual(set(self.fly(flight).values()), {"pass"})
        schedule.drop_builds(self.home, flight)
        self.database.set_job(flight, "t", "aborted")
        schedule.queue_lost_builds(self.home, flight)
        found = {job.job: job.status for job in self.database.jobs(flight)}
        self.assertEqual(found, {"a": "queued", "b": "pass", "c": "pass", "t": "aborted", "u": "pass"})
        self.assertEqual(set(self.fly(flight).values()), {"pass"})
        self.assertEqual((self.folder / "made").read_text(), "x\n" * 4)
        # What is there does not run again.
        self.database.set_job(flight, "t", "aborted")
        schedule.queue_lost_builds(self.home, flight)
        self.assertEqual(self.database.job(flight, "a").status, "pass")

    def test_ctrl_c_ends_everything(self):
        self.program("ts-slow", f"sleep 987 & echo $! > {self.folder}/pid; wait")
        flight = self.flight(Spec("slow", "r", {}))
        body = f"""
            from functools import partial
            from pathlib import Path
            from xenits.osstest import cli, recipes
            steps = dict(r=[recipes.Step("ts-slow", "slow")])
            cli.Runner = partial(cli.Runner, recipes=steps, programs=Path({str(self.programs)!r}))
            sys.exit(cli.main(["--home", {str(self.home.folder)!r}, "flight", "--resume"]))
        """
        self.python("runner", body)
        runner = subprocess.Popen(
            [self.programs / "runner"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.addCleanup(runner.stdout.close)
        self.addCleanup(runner.kill)
        for _ in range(200):
            if (self.folder / "pid").exists() and (self.folder / "pid").read_text():
                break
            time.sleep(0.1)
        pid = int((self.folder / "pid").read_text())
        second = subprocess.run([self.programs / "runner"], capture_output=True, text=True, check=False)
        self.assertEqual(second.returncode, 2)
        self.assertIn("somebody else runs flight", second.stderr)
        runner.send_signal(signal.SIGINT)
        said, _ = runner.communicate(timeout=60)
        self.assertEqual(runner.returncode, 130, said)
        self.assertIn("--resume 1", said)
        self.assertIn("1: unfinished", said)
        self.assertEqual(self.database.job(flight, "slow").status, "aborted")
        Statuses.assertGone(self, pid)


class Reports(FakeFlights):
    """Flights of which only the outcome is written down."""

    def past(self, branch="b", **outcomes):
        """A flight with a job for each word; a word is the status of its one test, behind a step that passed."""
        flight = self.flight(*(Spec(job, "r", {}) for job in outcomes), branch=branch)
        for job, word in outcomes.items():
            self.database.begin_step(flight, job, 1, "ts-first", "first")
            self.database.end_step(flight, job, 1, "pass")
            self.database.begin_step(flight, job, 2, "ts-its-check", "its-check")
            self.database.end_step(flight, job, 2, word)
            self.database.set_job(flight, job, word)
        return flight

    def verdicts(self, flight, against=None):
        return {f.job: f.remark() for f in history.History(self.database, flight, against).failures()}

    def test_failures_are_compared_with_the_flight_before(self):
        first = self.past(a="pass", b="fail", c="fail", d="pass", e="pass")
        second = self.past(a="pass", b="fail", c="pass", d="fail", e="pass")
        third = self.past(a="fail", b="fail", c="broken", d="fail", e="blocked", new="fail", model="starved")
        self.assertEqual(
            self.verdicts(third),
            {
                "a": f"REGR. vs. {second}",
                "b": "never pass",
                "c": f"REGR. vs. {second}",
                "d": f"like {second}",
                "e": "n/a",
                "new": "never pass",
                "model": "n/a",
            },
        )
        self.assertEqual(self.verdicts(third, against=first)["d"], f"REGR. vs. {first}")
        self.assertEqual(self.verdicts(third, against=first)["c"], f"like {first}")

    def test_only_finished_flights_of_the_branch_count(self):
        good = self.past(a="pass")
        self.past(branch="other", a="fail")
        self.past(a="fail", b="aborted")
        last = self.past(a="fail")
        self.assertEqual(self.verdicts(last), {"a": f"REGR. vs. {good}"})

    def test_where_the_flight_before_has_nothing_to_say_the_last_that_passed_counts(self):
        good = self.past(a="pass", b="pass")
        self.past(a="fail", b="pass")
        self.past(b="pass")
        self.assertEqual(self.verdicts(self.past(a="fail", b="pass")), {"a": f"REGR. vs. {good}"})

    def test_a_planted_regression_is_named(self):
        self.past(**{"test-one": "pass", "test-two": "pass"})
        bad = self.past(**{"test-one": "fail", "test-two": "pass"})
        said = text.render(self.home, bad)
        self.assertRegex(said, r"(?m)^ test-one +2 its-check +fail +REGR\. vs\. 1$")
        self.assertTrue(said.startswith(f"[b test] {bad}: regressions - FAIL\n"))
        self.assertIn("X-Osstest-Failures: b:test-one:its-check:fail:regression\n", said)
        self.assertNotRegex(said, r"test-two +\d")

    def test_a_flight_that_is_all_good_says_so(self):
        said = text.render(self.home, self.past(a="pass", b="pass"))
        self.assertIn(": all pass\n", said)
        self.assertNotIn("did not succeed", said)
        for word in (": FAIL\n", ": tolerable FAIL\n"):
            self.assertIn(word, text.render(self.home, self.past(branch="x", a="fail")))
        self.assertIn(": all pass, but 1 starved\n", text.render(self.home, self.past(branch="y", a="starved")))

    def test_the_page_leads_from_each_job_to_its_log(self):
        one, two = f"{jobs.PREFIX}boot", f"{jobs.PREFIX}boot-c"
        self.past(**{one: "pass", two: "pass"})
        bad = self.past(**{one: "fail", two: "starved", "build-odd": "pass"})
        for job, seconds in ((one, "4.0"), (two, "8.0")):
            self.database.store(bad, job, "boot_seconds", seconds)
        log = self.home.step_log(bad, one, 2, "ts-its-check")
        log.parent.mkdir(parents=True)
        log.write_text("what went wrong: a < b\x1b & c\n")
        (log.parent / "serial.log").write_text("")
        files = {path.suffix: path.read_text() for path in publish.publish(self.home, bad)}
        made = files[".html"]
        self.assertIn("regressions - FAIL", made)
        self.assertRegex(made, rf'<a class="cell fail" href="{one}/2.ts-its-check.log" title="{one}">fail')
        self.assertRegex(made, rf'<a class="cell starved" href="{two}/2.ts-its-check.log"')
        self.assertIn("what went wrong: a &lt; b? &amp; c", made)
        self.assertIn(">its-boot-c: starved<", made)
        self.assertIn(f"REGR. vs. {bad - 1}", made)
        self.assertIn(f'href="{one}/serial.log"', made)
        self.assertIn(">0.50<", made)
        self.assertIn(f'<a href="../{bad}/index.html"><circle class="rust"', made)
        self.assertIn(">build-odd: pass<", made)
        self.assertEqual(files[".txt"], text.render(self.home, bad) + "\n")
        # What follows is about the XML.
        suites = ElementTree.fromstring(files[".xml"])
        self.assertEqual([suites.get(k) for k in ("tests", "failures", "errors", "skipped")], ["6", "1", "0", "1"])
        failure = suites.find(f"testsuite[@name='{one}']/testcase/failure")
        self.assertEqual(failure.text, "what went wrong: a < b? & c")
        self.assertEqual(failure.get("message"), "fail")

    def test_a_job_has_its_place_in_the_grid(self):
        self.assertEqual(page.place(f"{jobs.PREFIX}nvme"), ("nvme", ""))
        self.assertEqual(page.place(f"{jobs.PREFIX}nvme-gic4-c"), ("nvme", "-gic4-c"))
        self.assertEqual(page.place(f"{jobs.PREFIX}hostile-fvp"), ("hostile", "-fvp"))
        self.assertIsNone(page.place(f"{jobs.PREFIX}nvme-smp16"))
        self.assertIsNone(page.place("build-arm64-its-c"))

    def test_charts_begin_at_nothing_and_end_at_a_round_number(self):
        self.assertEqual([plots.round_up(v) for v in (0, 3, 4.9, 21, 0.3, 100, 1800)], [1, 5, 5, 25, 0.5, 100, 2000])
        self.assertEqual(plots.chart("x", [plots.Line("r", "rust", [])]), "")
        made = ElementTree.fromstring(plots.chart("x", [plots.Line("a & b", "rust", [(3, 0), (4, 50), (9, 100)])]))
        heights = [float(c.get("cy")) for c in made.iter("circle")]
        self.assertEqual(heights[0], plots.HEIGHT - plots.BOTTOM)
        self.assertEqual(heights[2], plots.TOP)
        self.assertAlmostEqual(heights[1], (heights[0] + heights[2]) / 2)
        self.assertEqual([t.text for t in made.iter("title")][1], "flight 4, a & b: 50")


class Jobs(unittest.TestCase):
    NAMED = "boot nvme multi smp movi hotplug unbind storm conformance hostile release livepatch".split()

    def test_the_names_that_people_will_look_for(self):
        known = jobs.all_jobs()
        for case in self.NAMED:
            self.assertIn(f"test-arm64-arm64-xl-its-{case}", known)
            self.assertIn(f"test-arm64-arm64-xl-its-{case}-gic4", known)
        for name in ("build-arm64-its-rust", "build-arm64-its-c", "build-arm64-its-rust-upstream"):
            self.assertEqual(known[name].recipe, "build-its")
        self.assertEqual({spec.recipe for spec in known.values()} - set(recipes.RECIPES), set())

    def test_runvars_say_all_that_a_boot_needs(self):
        for case, test in jobs.DOM0_CASES.items():
            there = jobs.options(jobs.dom0_job(case, limit=test.options.limit).runvars)
            self.assertEqual(there, test.options)
        for case, test in jobs.GUEST_CASES.items():
            there = jobs.guest_test(jobs.guest_job(case).runvars)
            self.assertEqual((there.machine, there.tests, there.fuzz), (test.machine, test.tests, test.fuzz))

    def test_variants_differ_in_what_they_say(self):
        four = jobs.options(jobs.all_jobs()["test-arm64-arm64-xl-its-multi-gic4"].runvars)
        self.assertEqual((four.gic, four.its, four.smp), (4, "rust", 4))
        c = jobs.all_jobs()["test-arm64-arm64-xl-its-nvme-c"]
        self.assertEqual(jobs.options(c.runvars).test, "smoke,timeout=432")
        self.assertEqual(jobs.options(c.runvars).limit, 480)
        self.assertEqual(c.needs(), ["build-arm64-its-c", "build-arm64-pvops"])
        self.assertEqual(
            jobs.guest_test(jobs.all_jobs()["test-arm64-arm64-xl-its-hostile-gic4"].runvars).machine.gic, 4
        )

    def test_the_c_version_is_not_asked_for_counters(self):
        self.assertEqual(len(jobs.expectations(jobs.dom0_job("nvme").runvars)), 6)
        boot = qemu.Boot(Console(), 1.0, Path(os.devnull), [], "powered off", True)
        self.assertTrue(any("counter" in e(boot) for e in jobs.expectations(jobs.dom0_job("storm").runvars)))
        for case in jobs.C_CASES:
            for expect in jobs.expectations(jobs.dom0_job(case, "-c", its="c").runvars):
                self.assertNotIn("counter", expect(boot))

    def test_leaks_have_a_step_of_their_own(self):
        for case, test in jobs.DOM0_CASES.items():
            self.assertIn(boots.balanced, test.expect, case)
            self.assertNotIn(boots.balanced, jobs.expectations(jobs.dom0_job(case).runvars))

    def test_each_test_job_is_in_one_flight(self):
        full, weekly = ({spec.name for spec in make("")} for make in (flights.full, flights.weekly))
        self.assertEqual(full | weekly, set(jobs.all_jobs()))
        self.assertEqual({name for name in full & weekly if name.startswith("test-")}, set())
        self.assertLessEqual({f"{jobs.PREFIX}cpus-smp{n}" for n in (1, 16)} | {f"{jobs.PREFIX}storm-long"}, weekly)

    def test_a_tree_of_ones_own_is_built_and_booted(self):
        known = jobs.all_jobs("/some/tree")
        self.assertEqual(known["build-arm64-its-rust-upstream"].runvars["tree_xen"], "/some/tree")
        needs = known["test-arm64-arm64-xl-its-nvme-upstream"].needs()
        self.assertEqual(needs, ["build-arm64-its-rust-upstream", "build-arm64-pvops"])
        self.assertNotIn("test-arm64-arm64-xl-its-nvme-upstream", jobs.all_jobs())

    def test_another_xen_of_debians_is_built_and_booted_each_week(self):
        weekly = {spec.name: spec for spec in flights.weekly("")}
        for its, end in (("rust", "-sid"), ("c", "-sid-c")):
            self.assertEqual(weekly[f"build-arm64-its-{its}-sid"].runvars["suite_xen"], "sid")
            self.assertIn(f"build-arm64-its-{its}-sid", weekly[f"{jobs.PREFIX}multi{end}"].needs())
        self.assertIn("build-arm64-its-rust-sid", weekly[f"{jobs.PREFIX}conformance-sid"].needs())

    def test_a_xen_that_can_be_live_patched_is_another(self):
        known = jobs.all_jobs()
        self.assertIn("build-arm64-its-rust-livepatch", known[f"{jobs.PREFIX}livepatch-gic4"].needs())
        self.assertNotIn("build-arm64-its-rust-livepatch", known[f"{jobs.PREFIX}nvme"].needs())

    def test_a_model_is_told_what_to_run(self):
        options = jobs.fvp_options(jobs.fvp_job("release").runvars)
        self.assertEqual((options.its, options.smp, options.debug, options.tree), ("rust", 2, False, None))
        self.assertTrue(jobs.fvp_options(jobs.fvp_job("conformance").runvars).debug)

    def test_a_flight_has_the_builds_of_its_jobs_first(self):
        names = [spec.name for spec in flights.smoke("")]
        for spec in flights.smoke(""):
            for needed in spec.needs():
                self.assertLess(names.index(needed), names.index(spec.name))
        with self.assertRaises(StepError):
            flights.with_needs(["test-nothing"], jobs.all_jobs())


class DropIn(unittest.TestCase):
    """What is written into a real osstest."""

    TCL = """
    proc catching-otherwise {status script} {
        global ok
        if {[catch {uplevel 1 $script}]} { set ok 0; puts "job $status" }
    }
    proc run-ts {iffail testid ts args} {
        puts "$testid $ts $args"
        if {$ts in $::bad} { error "bad" }
    }
    set ok 1
    """

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def installed(self):
        (self.folder / "sg-run-job").touch()
        return dropin.install(self.folder, "smoke")

    def run_recipe(self, name, *bad):
        """What a recipe does where these steps fail, as the real runner's language has it."""
        self.installed()
        body = f"{self.TCL}\nset bad {{{' '.join(bad)}}}\nsource {self.folder}/{dropin.RECIPES_FILE}\n"
        body += f'if {{[need-hosts/{name}] ne ""}} {{ exit 9 }}\nrun-job/{name}\n'
        done = subprocess.run(["tclsh"], input=body, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def test_every_step_has_a_wrapper_that_finds_osstests_folder(self):
        names = {path.name for path in self.installed()}
        self.assertEqual({s.program for steps in recipes.RECIPES.values() for s in steps} - names, set())
        done = subprocess.run(
            [self.folder / "ts-its-check"], cwd=self.folder, capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "OSSTEST_FLIGHT": "7", "OSSTEST_JOB": "some-job"},
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (2, "flight 7 has no job some-job\n"))
        self.assertTrue((self.folder / "standalone.db").exists())

    def test_the_flight_is_created_with_its_runvars(self):
        self.installed()
        said = self.folder / "said"
        create = self.folder / "cs-job-create"
        create.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{said}; echo >>{said}\n')
        create.chmod(0o755)
        subprocess.run(["./make-its-flight", "7"], cwd=self.folder, check=True)
        lines = [line.split("|") for line in said.read_text().splitlines()]
        self.assertEqual([line[1] for line in lines], [spec.name for spec in flights.smoke("")])
        self.assertTrue(all(line[0] == "7" for line in lines))
        wanted = [f"{key}={value}" for key, value in flights.smoke("")[-1].runvars.items()]
        self.assertEqual(lines[-1][3:-1], wanted)

    def test_it_overwrites_only_what_is_its_own(self):
        with self.assertRaises(StepError):
            dropin.install(self.folder, "smoke")
        self.installed()
        self.installed()
        (self.folder / "ts-its-check").write_text("somebody's own")
        with self.assertRaisesRegex(StepError, "not from here"):
            self.installed()

    @unittest.skipUnless(shutil.which("tclsh"), "there is no tclsh, in which osstest's runner is written")
    def test_recipes_do_what_our_runner_does(self):
        good = self.run_recipe("test-its-dom0")
        programs = [step.program for step in recipes.RECIPES["test-its-dom0"]]
        self.assertEqual([line.split()[1] for line in good], programs)
        self.assertEqual(self.run_recipe("build-its")[1], "xen-build/debug ts-its-xen-build + debug")
        blocked = self.run_recipe("test-its-dom0", "ts-its-build-check")
        self.assertEqual([line.split()[0] for line in blocked], ["build-check(*)", "job", "capture-logs"])
        self.assertEqual(blocked[1], "job blocked")
        checks = self.run_recipe("test-its-dom0", "ts-its-check")
        self.assertEqual(checks[4:6], ["job fail", "guest-errors ts-its-guest-errors "])
        unbooted = self.run_recipe("test-its-dom0", "ts-its-xen-boot")
        self.assertEqual(unbooted[3:], ["job fail", "capture-logs ts-its-logs-capture "])


class CommandLine(FakeFlights):
    def said(self, *argv):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = cli.main(["--home", str(self.home.folder), *argv])
        return code, out.getvalue()

    def test_list_and_report(self):
        self.assertEqual(self.said("report")[0], 2)
        self.flight(Spec("some-job", "r", {}), branch="mine")
        code, said = self.said("list")
        self.assertEqual(code, 0)
        self.assertRegex(said, r" 1 .* mine +1 queued")
        code, said = self.said("report")
        self.assertIn("[mine test] 1: unfinished", said)
        self.assertEqual(self.said("report", "9")[0], 2)
        self.assertEqual(self.said("flight")[0], 2)
        self.assertEqual(self.said("job", "test-nothing")[0], 2)

    def test_what_cannot_be_meant(self):
        self.flight(Spec("some-job", "r", {}))
        for argv, why in (
            (["flight", "smoke", "--resume"], "either a new flight smoke, or --resume"),
            (["report", "1", "--against", "1"], "flight 1 cannot be compared with itself"),
        ):
            with self.subTest(argv), mock.patch.object(cli, "fly", side_effect=AssertionError):
                code, said = self.said(*argv)
                self.assertEqual(code, 2)
                self.assertIn(why, said)
        for number in ("0", "-1"):
            with (
                self.subTest(number),
                mock.patch.object(cli, "fly", side_effect=AssertionError),
                self.assertRaises(SystemExit) as caught,
            ):
                self.said("flight", "smoke", "--cores", number)
            self.assertEqual(caught.exception.code, 2)

    def test_ctrl_c_is_no_traceback(self):
        with mock.patch.object(cli, "show", side_effect=KeyboardInterrupt):
            self.flight(Spec("some-job", "r", {}))
            self.assertEqual(self.said("report"), (130, "\nstopped\n"))

    def test_a_disk_with_no_room_for_the_database_is_no_traceback(self):
        with mock.patch.object(cli, "start", side_effect=sqlite3.OperationalError("database or disk is full")):
            code, said = self.said("job", "build-arm64-its-c")
        self.assertEqual((code, said), (1, "what the flight does cannot be written down: database or disk is full\n"))


class Tables(FakeFlights):
    def test_they_have_osstests_columns(self):
        with contextlib.closing(sqlite3.connect(self.database.path)) as db:
            columns = {
                table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
                for table in ("flights", "jobs", "steps", "runvars")
            }
        self.assertEqual(columns["flights"], {"flight", "started", "blessing", "branch", "intended"})
        self.assertEqual(columns["jobs"], {"flight", "job", "recipe", "status"})
        self.assertEqual(
            columns["steps"], {"flight", "job", "stepno", "step", "testid", "status", "started", "finished"}
        )
        self.assertEqual(columns["runvars"], {"flight", "job", "name", "val", "synth"})

    def test_a_job_that_runs_anew_keeps_only_what_it_was_given(self):
        flight = self.flight(Spec("j", "r", {"in": "1"}))
        self.database.store(flight, "j", "out", "2")
        self.database.begin_step(flight, "j", 1, "ts-it", "it")
        self.database.rewind(flight, "j")
        self.assertEqual(self.database.runvars(flight, "j"), {"in": "1"})
        self.assertEqual(self.database.steps(flight), [])


if __name__ == "__main__":
    unittest.main()
