package ledger

// Place appends pending facts to the tree whose state is s, as the sequencer does; right reads its tiles. For a replay.
func Place(s State, pending []Pending, right func(level int, index uint64) ([]byte, error)) (Placement, error) {
	return place(s, pending, right)
}
