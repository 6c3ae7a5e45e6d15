package sleep

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lookEvery is how often it is looked where the kernel does not tell.
const lookEvery = 5 * time.Second

// Watch calls woke after each suspension of the machine of a second or more, with how long it was, until stop is closed. The kernel tells of
// it at once. It is looked every few seconds as well: no test can suspend a machine, and a wakeup that is told late costs less than one that
// is not.
func Watch(stop <-chan struct{}, woke func(slept time.Duration)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	if f, err := wallTimer(); err == nil {
		defer f.Close()
		go tell(f, changed)
	}
	follow(stop, changed, tick.C, Asleep, woke)
}

// Asleep returns how long the machine has been suspended since it started, as far as this time namespace tells: only what it grows by means
// anything.
func Asleep() (d time.Duration) {
	for range 8 {
		var before, boot, after unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &before) // neither fails since Linux 2.6.39
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
		took := time.Duration(after.Nano() - before.Nano())
		if d = time.Duration(boot.Nano() - before.Nano()); took < time.Millisecond {
			break // another reading would be no better
		}
	}
	return d
}

// wallTimer is a timer that never comes, and whose reading fails with ECANCELED when the wall clock leaps, which it does when the machine wakes
// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func wallTimer() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: 1 << 40}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		f.Close()
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	return f, nil
}

// tell sends to changed whenever the timer is cancelled, until it is closed.
func tell(f *os.File, changed chan<- struct{}) {
	var expirations [8]byte
	for {
		if _, err := f.Read(expirations[:]); !errors.Is(err, unix.ECANCELED) {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
