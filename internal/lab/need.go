package lab

import (
	"os"
	"os/exec"
	"testing"
)

// NoSkip is the environment variable that turns skips into failures when it is "1".
const NoSkip = "CULVERT_NO_SKIP"

// Skip ends the test as skipped for that reason, or as failed where skipping is not allowed.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf("cannot run and must not skip (%s=1): %s", NoSkip, reason)
	}
	t.Skip(reason)
}

// NeedProgram returns the path of a program, or skips the test. Programs of the administrator are found as well
// where an ordinary user's PATH leaves out sbin.
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	Skip(t, "needs the program "+name)
	return ""
}

// NeedRoot skips the test where it is not run by root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}
