package server

// A Store keeps what a server knows of the clients of one tunnel. Its methods may be called concurrently; transactions that write are
// one at a time.
type Store interface {
	// View runs f on the state of one moment.
	View(f func(Tx) error) error
	// Update runs f, and keeps all that it changed once that is on the disk; where f fails, nothing of it.
	Update(f func(Tx) error) error
	Close() error
}

// A Tx is one transaction of a [Store], good until the function it was given to returns. Keys and values are never empty.
type Tx interface {
	// Get returns a value that the caller may keep, or nil.
	Get(table, key string) []byte
	Put(table, key string, value []byte) error
	// Delete does nothing where there is no such key.
	Delete(table, key string) error
	// Each calls f for each entry in ascending order of keys, until it fails, and returns its error. f does not change the table.
	Each(table string, f func(key string, value []byte) error) error
}

// Tables of the store.
const (
	clientTable     = "clients"     // by name
	leaseTable      = "leases"      // by address
	invitationTable = "invitations" // by the public key of its end
	factorTable     = "factors"     // by name
)
