package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"culvert/setup/service"
)

const superviseCommand = "supervise"

// supervise is the process that keeps an instance's services and hand-overs; see package service. It is started by culvert itself.
func (p *program) supervise() *cobra.Command {
	return &cobra.Command{
		Use:    superviseCommand + " DIR NAME",
		Hidden: true,
		Args:   needArgs("DIR", "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, name := args[0], serviceLogName(args[1])
			if err := obeyNiceEnv(); err != nil {
				return err
			}
			if err := service.CheckStarted(dir); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			signal.Ignore(syscall.SIGHUP)
			if err := os.MkdirAll(p.runDir, 0o700); err != nil {
				return permissionHint(err)
			}
			log, err := openLogFile(p.runDir, name, false)
			if err != nil {
				return permissionHint(err)
			}
			began := time.Now()
			logger := newLog(log, slog.LevelInfo)
			err = service.Supervise(ctx, service.Options{Dir: dir, Now: func() time.Duration { return time.Since(began) }, Log: logger,
				Ended: func() error { return os.Remove(logPath(p.runDir, name)) }})
			if err != nil {
				logger.Error("the supervisor has ended", "error", err)
			}
			return err
		},
	}
}

// serviceLogName is what the log of an instance's services is called in the run directory, without ".log". No instance can have
// a name with a tilde, so it is no instance's own log.
func serviceLogName(instance string) string { return instance + "~services" }

// services is the kernel part for processes and hand-overs of an instance. culvert is the program that supervises them: this one,
// by its path.
func (p *program) services(culvert, instance string) *service.Kernel {
	dir := filepath.Join(p.runDir, serviceLogName(instance))
	return service.New(dir, func() *exec.Cmd {
		cmd := exec.Command(culvert)
		cmd.Args = []string{p.name, superviseCommand, dir, instance}
		cmd.Env = append(append(os.Environ(), runDirEnv+"="+p.runDir), p.priority.env()...)
		return cmd
	})
}
