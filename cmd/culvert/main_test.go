package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is the program itself when it is called by one of its names, and one with faults where a variable says so.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // or each of many short-lived programs lasts a second
	}
	if folder := os.Getenv(faultsEnv); folder != "" {
		os.Exit(faultyProgram(folder).run(os.Args))
	}
	if isBetween() {
		os.Exit(standBetween())
	}
	testscript.Main(m, map[string]func(){"culvert": main, "culvert-wg": main})
}

// TestScripts runs the command line through testdata/script. Besides testscript's commands there is
// "exits CODE PROGRAM ARGS...".
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("CULVERT_RUN_DIR", filepath.Join(e.WorkDir, "run"))
			e.Setenv("CULVERT_WG_DIR", filepath.Join(e.WorkDir, "wg"))
			e.Setenv("CULVERT_STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return os.Chmod(e.WorkDir, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					e, ok := errors.AsType[*exec.ExitError](err)
					if !ok {
						ts.Fatalf("%v", err)
					}
					got = e.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"private": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, f := range args {
					ts.Check(os.Chmod(ts.MkAbs(f), 0o600))
				}
			},
			"isprivate": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, f := range args {
					st, err := os.Lstat(ts.MkAbs(f))
					ts.Check(err)
					if st.Mode() != 0o600 {
						ts.Fatalf("%s has mode %v", f, st.Mode())
					}
				}
			},
		},
	})
}
