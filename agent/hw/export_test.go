package hw

// Unlock opens what LockSecret closed in a shadow, as a reset would.
func Unlock(shadow *Board) {
	if f, ok := shadow.Fuses.bank.(*shadowFuses); ok {
		f.hidden = false
	}
}
