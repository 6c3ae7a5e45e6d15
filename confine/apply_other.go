//go:build !linux

package confine

// Calls names the system calls that are refused: none are.
func Calls(Options) string { return "none" }

// Apply takes nothing: Landlock and seccomp are Linux's.
func Apply(Options) Result { return Result{Files: "needs Linux", Calls: "needs Linux"} }
