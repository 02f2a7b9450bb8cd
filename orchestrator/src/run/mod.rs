//! The run itself: every effect is journalled before it is made.
