package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// clockTicks is the unit of CPU times in /proc, per second (USER_HZ; 100 on every architecture Go runs on).
const clockTicks = 100

// processCPU returns the CPU time a process has used so far in user and kernel mode, in seconds.
func processCPU(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseProcessCPU(string(text))
}

// parseProcessCPU reads fields 14 and 15 of proc_pid_stat(5).
func parseProcessCPU(stat string) (float64, error) {
	// The second field is the program's name in parentheses, which may contain anything.
	i := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[i+1:])
	if i < 0 || len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat: too short")
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	kernel, err := strconv.ParseUint(fields[12], 10, 64)
	return float64(user+kernel) / clockTicks, err
}

// peakMemory returns the most memory a process has ever had resident, in bytes.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseKB(string(text), "VmHWM:")
}

// parseKB reads a line "KEY   123 kB" and returns bytes.
func parseKB(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("there is no line %s", key)
}

// machineCPU is what all processors of the machine have done so far, in seconds.
type machineCPU struct{ Busy, Stolen float64 }

func readMachineCPU() (machineCPU, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineCPU{}, err
	}
	return parseMachineCPU(string(text))
}

// parseMachineCPU reads the first line of proc_stat(5).
func parseMachineCPU(stat string) (c machineCPU, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return c, errors.New("/proc/stat: no line of all processors")
	}
	// user nice system idle iowait irq softirq steal; the guests' time is within user's.
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return c, err
		}
		switch i {
		case 3, 4:
		case 7:
			c.Stolen = float64(ticks) / clockTicks
		default:
			c.Busy += float64(ticks) / clockTicks
		}
	}
	return c, nil
}
