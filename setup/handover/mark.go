package handover

// Mark tells a socket file, or a folder made for it, from a later one of its name.
type Mark struct {
	Dev     uint64   `json:"dev"`
	Inode   uint64   `json:"inode"`
	Folders []string `json:"folders,omitempty"` // made for the socket, the outermost first
}
