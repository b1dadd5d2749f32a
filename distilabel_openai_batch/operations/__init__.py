"""Operations behind the commands: estimate, import, export, forget, diagnose, poll."""
