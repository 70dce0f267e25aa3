package hw

// Unlock opens what LockFixed closed in a shadow, as a reset would.
func Unlock(shadow *Board) {
	if f, ok := shadow.Fuses.bank.(*shadowFuses); ok {
		f.hidden = false
	}
}
