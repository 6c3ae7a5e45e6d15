package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Machine is where the measurements were made, and from which sources.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	TCP         string `json:"tcp"` // congestion control
	// Commit is that of the checkout bench was run in; Dirty when its Go files differ from it. "" where there is none.
	Commit string `json:"commit"`
	Dirty  bool   `json:"dirty"`
}

// thisMachine describes this machine; what it does not tell is left empty.
func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = cpuModel(readText("/proc/cpuinfo"))
	m.MemoryBytes, _ = parseKB(readText("/proc/meminfo"), "MemTotal:")
	m.Kernel = runtime.GOOS + "/" + runtime.GOARCH + " " + readText("/proc/sys/kernel/osrelease")
	m.TCP = readText("/proc/sys/net/ipv4/tcp_congestion_control")
	if commit, err := exec.Command("git", "rev-parse", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(commit))
		changes, err := exec.Command("git", "status", "--porcelain", "--", ":/*.go", ":/go.mod", ":/go.sum").Output()
		m.Dirty = err != nil || len(changes) > 0
	}
	return m
}

func readText(file string) string {
	text, _ := os.ReadFile(file)
	return strings.TrimSpace(string(text))
}

// cpuModel returns the first processor's name. Other architectures than x86 give it no name.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// load returns the load average of the last minute.
func load() string {
	one, _, _ := strings.Cut(readText("/proc/loadavg"), " ")
	return one
}
