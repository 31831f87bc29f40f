"""Operations of every pass, in the letters of its shapes; the conventions of the papers beside them."""
