package server

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// Memory is a [Store] that forgets everything with the process. The zero value is ready.
type Memory struct {
	mu     sync.RWMutex
	tables map[string]map[string][]byte
}

// ErrReadOnly is what writing in a [Store.View] fails with.
var ErrReadOnly = errors.New("server: transaction is for reading only")

// View implements [Store].
func (m *Memory) View(f func(Tx) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return f(memoryTx{m.tables, true})
}

// Update implements [Store].
func (m *Memory) Update(f func(Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	draft := make(map[string]map[string][]byte, len(m.tables))
	for name, t := range m.tables {
		draft[name] = maps.Clone(t)
	}
	if err := f(memoryTx{draft, false}); err != nil {
		return err
	}
	m.tables = draft
	return nil
}

// Close implements [Store].
func (m *Memory) Close() error { return nil }

type memoryTx struct {
	tables   map[string]map[string][]byte
	readOnly bool
}

func (t memoryTx) Get(table, key string) []byte { return slices.Clone(t.tables[table][key]) }

func (t memoryTx) Put(table, key string, value []byte) error {
	if t.readOnly {
		return ErrReadOnly
	}
	if t.tables[table] == nil {
		t.tables[table] = make(map[string][]byte)
	}
	t.tables[table][key] = slices.Clone(value)
	return nil
}

func (t memoryTx) Delete(table, key string) error {
	if t.readOnly {
		return ErrReadOnly
	}
	delete(t.tables[table], key)
	return nil
}

func (t memoryTx) Each(table string, f func(key string, value []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(t.tables[table])) {
		if err := f(key, slices.Clone(t.tables[table][key])); err != nil {
			return err
		}
	}
	return nil
}
