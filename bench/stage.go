package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// stage is what package lab builds hosts on where there is no test: a testing.TB that keeps the first failure and runs
// the cleanups. Only what lab uses is there; the embedded interface is nil and satisfies the rest.
type stage struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	errs     []error
	cleanups []func()
}

// onStage runs f and then, in whatever way f ended, the cleanups registered meanwhile, the last first. It returns f's
// error joined with what failed on the stage; a stage whose context was cancelled returns the cause of that alone.
func onStage(ctx context.Context, f func(*stage) error) error {
	s := &stage{ctx: ctx}
	ended := make(chan struct{})
	go func() { // FailNow ends its goroutine
		defer close(ended)
		defer s.clean()
		if err := f(s); err != nil {
			s.fail(err)
		}
	}()
	<-ended
	if ctx.Err() != nil {
		// What failed afterwards failed because everything was being stopped.
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

func (s *stage) clean() {
	for {
		s.mu.Lock()
		cleanups := s.cleanups
		s.cleanups = nil
		s.mu.Unlock()
		if len(cleanups) == 0 {
			return
		}
		for _, cleanup := range slices.Backward(cleanups) {
			func() {
				// One that fails the stage must not keep the others from running.
				done := make(chan struct{})
				go func() {
					defer close(done)
					cleanup()
				}()
				<-done
			}()
		}
	}
}

func (s *stage) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(s.errs, err)
}

// Helper does nothing: failures are told without lines of code.
func (s *stage) Helper() {}

// Context is that of the whole stage; the cleanups may use it only to see that it ended.
func (s *stage) Context() context.Context { return s.ctx }

// Cleanup has f called at the end of the stage.
func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// Failed reports whether anything has failed.
func (s *stage) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.errs) > 0
}

// Error keeps a failure and goes on.
func (s *stage) Error(args ...any) {
	if len(args) == 1 {
		if err, ok := args[0].(error); ok {
			s.fail(err)
			return
		}
	}
	s.fail(errors.New(fmt.Sprint(args...)))
}

// Errorf keeps a failure and goes on.
func (s *stage) Errorf(format string, args ...any) { s.fail(fmt.Errorf(format, args...)) }

// FailNow ends the calling goroutine, which must be the stage's.
func (s *stage) FailNow() { runtime.Goexit() }

// Fatal keeps a failure and ends the calling goroutine.
func (s *stage) Fatal(args ...any) {
	s.Error(args...)
	s.FailNow()
}

// Fatalf keeps a failure and ends the calling goroutine.
func (s *stage) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	s.FailNow()
}

// Skip is a failure: whoever runs a benchmark wants figures.
func (s *stage) Skip(args ...any) { s.Fatal(args...) }

// SkipNow is as FailNow.
func (s *stage) SkipNow() { s.FailNow() }

// Skipped reports false.
func (s *stage) Skipped() bool { return false }
