package audit

import (
	"errors"
	"fmt"
)

// Signed verifies a checkpoint that nobody but the log need have signed: it was made to be witnessed, and may not have been.
func Signed(p Policy, note []byte) (Head, error) {
	if p.Origin == "" || len(p.Key) == 0 {
		return Head{}, errors.Join(ErrPolicy, errors.New("no origin or no key"))
	}
	var r Report
	root, err := r.checkNote(p, note)
	if err != nil {
		return Head{}, fmt.Errorf("signed checkpoint: %w", err)
	}
	return Head{Origin: r.Origin, Size: r.Size, Root: root}, nil
}
